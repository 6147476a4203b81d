"""Lifecycle, output, host configs, and the parts of the executors that need no executor."""

import asyncio
import ssl
import time
from unittest.mock import patch

import pytest

from container_manager.domain.image import registry_of
from container_manager.domain.lifecycle import ACTIVE, TERMINAL, TRANSITIONS, JobStatus, sources
from container_manager.errors import ValidationFailed
from container_manager.executors.base import Execution, ExecutionState, ExecutorSettings, LaunchSpec
from container_manager.executors.configs import DockerConfig
from container_manager.executors.docker import DockerExecutor
from container_manager.executors.docker.frames import Frames
from container_manager.executors.docker.pull import with_tag
from container_manager.executors.docker.settings import container_settings
from container_manager.executors.exceptions import (
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorOperationError,
)
from container_manager.executors.output import BoundedOutput, OutputLine
from container_manager.executors.secrets import SECRET_MASK, hide_secrets, keep_secrets
from container_manager.executors.simulated import SimulatedExecutor
from container_manager.specs import read_config, read_host, read_job

CLOUDRUN = {"project": "demo-project", "region": "europe-west1"}
HOME = {"plaintext": True, "endpoint": "localhost:8080"}


def test_terminal_states_lead_only_to_a_next_attempt() -> None:
    assert set(TRANSITIONS) == set(JobStatus)
    assert not ACTIVE & TERMINAL
    assert all(TRANSITIONS[state] <= {JobStatus.PENDING} for state in TERMINAL)
    assert TRANSITIONS[JobStatus.SUCCEEDED] == frozenset()
    assert sources(JobStatus.RUNNING) == {JobStatus.LAUNCHING}
    assert sources(JobStatus.ROUTED) == {JobStatus.PENDING}


def test_short_output_is_kept_whole() -> None:
    output = BoundedOutput(1000)
    lines = [OutputLine("stdout", n, f"line {n}") for n in range(20)]
    for line in lines:
        output.add(line)
    assert list(output.kept()) == lines


def test_long_output_loses_its_middle_and_says_how_much() -> None:
    output = BoundedOutput(1000)
    for n in range(1000):
        output.add(OutputLine("stdout", n, f"line {n:04}"))
    kept = list(output.kept())
    assert kept[0].text == "line 0000"
    assert kept[-1].text == "line 0999"
    (marker,) = [line for line in kept if "dropped" in line.text]
    dropped = 1000 - (len(kept) - 1)
    assert f"{dropped} lines, {dropped * 10} bytes dropped" in marker.text
    assert sum(len(line.text) + 1 for line in kept) <= 1000 + len(marker.text) + 1


def test_one_line_larger_than_the_bound_is_dropped() -> None:
    output = BoundedOutput(100)
    output.add(OutputLine("stdout", 1, "x" * 500))
    (marker,) = output.kept()
    assert "1 lines, 501 bytes dropped" in marker.text


def frame(stream: int, text: bytes, second: int = 1) -> bytes:
    payload = f"2026-01-02T03:04:{second:02}.5Z ".encode() + text
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_frames_are_put_together_from_pieces_of_any_size(size: int) -> None:
    stream = frame(1, b"begun ", 1) + frame(2, b"err\xff\n", 2) + frame(1, b"ended\n", 3) + frame(1, b"open", 4)
    frames = Frames(10_000)
    lines = [line for at in range(0, len(stream), size) for line in frames.feed(stream[at : at + size])]
    lines += frames.rest()
    assert [(line.stream, line.text) for line in lines] == [
        ("stderr", "err\ufffd"), ("stdout", "begun ended"), ("stdout", "open"),
    ]  # fmt: skip
    assert lines[1].at_ns == 1_767_323_041_500_000_000


def test_what_the_engine_says_about_its_log_is_a_line_of_its_own() -> None:
    frames = Frames(10_000)
    text = b"Error grabbing logs: invalid character\n"
    lines = frames.feed(frame(1, b"before\n") + bytes([3, 0, 0, 0]) + len(text).to_bytes(4, "big") + text)
    assert [(line.stream, line.text) for line in lines] == [
        ("stdout", "before"), ("stderr", "Error grabbing logs: invalid character"),
    ]  # fmt: skip


def test_a_line_without_end_is_cut_and_costs_bounded_memory() -> None:
    frames = Frames(2500)
    for _ in range(1000):
        assert frames.feed(frame(1, b"x" * 1000)) == []
    long, after = frames.feed(frame(1, b"\n") + frame(1, b"next\n"))
    assert long.text == "x" * 2500 + " [container-manager: 997500 bytes of this line were cut]"
    assert after.text == "next"


@pytest.mark.parametrize(
    ("frames", "texts"),
    [
        ([b"10%\r50%\r100%\n"], ["100%"]),
        ([b"10%\r50%\r100%\r\n", b"next\n"], ["100%", "next"]),
        ([b"a line of Windows\r\n"], ["a line of Windows"]),
        ([b"10%\r20%\r3", b"0%\r40%\r", b"LAST STATE\n"], ["20%", "40%", "LAST STATE"]),
        ([b"10%\r20%\r3", b"0%"], ["20%", "30%"]),
        ([b"plain, then ", b"10%\r20%\n"], ["20%"]),
    ],
)
def test_a_line_that_is_written_over_is_its_last_state(frames: list[bytes], texts: list[str]) -> None:
    reader = Frames(10_000)
    lines = [line for piece in frames for line in reader.feed(frame(1, piece))]
    assert [line.text for line in [*lines, *reader.rest()]] == texts


# ------------------------------------------------------------------ inputs


def fields(error: ValidationFailed) -> dict[str, str]:
    return {entry.field: entry.message for entry in error.fields}


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"image": "Not An Image"}, "image", "is not an image reference"),
        ({"image": ""}, "image", "is not an image reference"),
        ({"memory_limit_mb": -1}, "memoryLimitMb", "greater than or equal to 6"),
        ({"cpu_limit": 0}, "cpuLimit", "greater than or equal to 0.01"),
        ({"cpu_limit": float("nan")}, "cpuLimit", "finite number"),
        ({"timeout_seconds": 0}, "timeoutSeconds", "greater than or equal to 1"),
        ({"priority": 5000}, "priority", "less than or equal to 1000"),
        ({"name": "x" * 300}, "name", "at most 200 characters"),
        ({"name": "a\0b"}, "name", "NUL"),
        ({"labels": {"a": 1}}, "labels.a", "must be a string"),
        ({"labels": ["a"]}, "labels", "must be an object"),
        ({"executor_required": True}, "executorRequired", "needs a preferredExecutor"),
        ({"region_required": True}, "regionRequired", "needs a regionPreference"),
        ({"environment": [{"name": "A=B", "value": ""}]}, "environment.0.name", "must not be empty or contain ="),
        ({"environment": [{"name": "A", "value": ""}] * 2}, "environment", "named twice"),
        ({"idempotency_key": ""}, "idempotencyKey", "at least 1 character"),
    ],
)
def test_a_bad_job_names_its_field(values: dict, field: str, sentence: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        read_job({"image": "busybox", **values})
    found = fields(caught.value)
    assert sentence in found[field]
    assert found[field].startswith(f"{field}: ")


@pytest.mark.parametrize(
    "image",
    ["busybox", "busybox:1.36", "library/busybox", "registry.example.org:5000/team/app_x/y-z:v1.0", "localhost/a",
     "a/b@sha256:" + "0" * 64, "gcr.io/p/i:t@sha256:" + "a" * 64],
)  # fmt: skip
def test_image_references_of_all_forms_pass(image: str) -> None:
    assert read_job({"image": image}).image == image


def test_a_bad_host_names_its_field() -> None:
    with pytest.raises(ValidationFailed) as caught:
        read_host({"name": "bad name!", "routing_weight": 1001, "max_concurrent_jobs": -1})
    assert set(fields(caught.value)) == {"name", "routingWeight", "maxConcurrentJobs"}


@pytest.mark.parametrize(
    ("kind", "config", "field"),
    [
        ("docker", {"url": "ssh://engine"}, "config.url"),
        ("docker", {"url": "npipe:////./pipe/docker_engine"}, "config.url"),
        ("docker", {"url": ""}, "config.url"),
        ("docker", {"registry_auth": {"": {"username": "u", "password": "p"}}}, "config.registry_auth"),
        ("docker", {"capabilities": ["ALL"]}, "config.capabilities.0"),
        ("docker", {"max_processes": 0}, "config.max_processes"),
        ("docker", {"urll": "unix:///x"}, "config.urll"),
        ("docker", {"url": "ftp://x"}, "config.url"),
        ("docker", {"network": "host"}, "config.network"),
        ("docker", {"network": "container:x"}, "config.network"),
        ("docker", {"url": "tcp://me:secret@engine:2375"}, "config.url"),
        ("docker", {"url": "tcp://engine:99999999"}, "config.url"),
        ("docker", {"url": "http://engine:2375"}, "config.url"),
        ("docker", {"url": "https://[::1"}, "config.url"),
        (
            "docker",
            {"registry_auth": {"r": {"username": "u", "password": "********"}}},
            "config.registry_auth.r.password",
        ),
        ("simulated", {"seed": 2**70}, "config.seed"),
        ("docker", {"tls": {"verfy": True}}, "config.tls.verfy"),
        ("docker", {"registry_auth": {"r.io": {"username": "u"}}}, "config.registry_auth.r.io.password"),
        ("docker", {"pull": "sometimes"}, "config.pull"),
        ("simulated", {"fail_launch": 2}, "config.fail_launch"),
        ("simulated", {"run_ms": "long"}, "config.run_ms"),
        ("cloudrun", {"region": "europe-west1"}, "config.project"),
        ("cloudrun", {"project": "p"}, "config.region"),
        ("cloudrun", CLOUDRUN | {"region": "Europe West"}, "config.region"),
        ("cloudrun", CLOUDRUN | {"endpoint": "https://run.example.org"}, "config.endpoint"),
        ("cloudrun", CLOUDRUN | {"endpoint": "run.example.org:0"}, "config.endpoint"),
        ("cloudrun", CLOUDRUN | {"credentials": "anonymous"}, "config.credentials"),
        ("cloudrun", CLOUDRUN | {"plaintext": True}, "config.plaintext"),
        ("cloudrun", CLOUDRUN | {"plaintext": True, "endpoint": "run.example.org:80"}, "config.plaintext"),
        ("cloudrun", CLOUDRUN | HOME | {"logging_endpoint": "logging.example.org"}, "config.plaintext"),
        ("cloudrun", CLOUDRUN | HOME | {"credentials": "/etc/key.json"}, "config.credentials"),
        ("cloudrun", CLOUDRUN | {"service_account": "me"}, "config.service_account"),
        ("cloudrun", CLOUDRUN | {"vpc": {}}, "config.vpc"),
        ("cloudrun", CLOUDRUN | {"vpc": {"connector": "c", "network": "n"}}, "config.vpc"),
        ("cloudrun", CLOUDRUN | {"vpc": {"connector": "c", "tags": ["t"]}}, "config.vpc"),
        ("cloudrun", CLOUDRUN | {"limits": {"timeout_seconds": 90000}}, "config.limits.timeout_seconds"),
        ("cloudrun", CLOUDRUN | {"poll_seconds": 0}, "config.poll_seconds"),
    ],
)
def test_a_bad_config_names_its_key(kind: str, config: dict, field: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        read_config(kind, config)
    assert list(fields(caught.value)) == [field]


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("unix:///run/docker.sock", "unix:///run/docker.sock"),
        ("unix:/var/run/docker.sock", "unix:///var/run/docker.sock"),
        ("/run/podman/podman.sock", "unix:///run/podman/podman.sock"),
        (" tcp://127.0.0.1 ", "tcp://127.0.0.1:2375"),
        ("engine", "tcp://engine:2375"),
        ("engine:4000", "tcp://engine:4000"),
        ("tcp://docker_socket_proxy_hs2:2375", "tcp://docker_socket_proxy_hs2:2375"),
        ("tcp://[::1]", "tcp://[::1]:2375"),
        ("https://engine", "https://engine"),
    ],
)
def test_an_address_is_brought_into_form(given: str, address: str) -> None:
    assert read_config("docker", {"url": given}) == {"url": address}


def test_an_address_with_tls_has_the_port_of_tls() -> None:
    assert read_config("docker", {"url": "tcp://engine", "tls": {}}) == {"url": "tcp://engine:2376", "tls": {}}


@pytest.mark.parametrize(
    ("given", "registry"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("http://registry:5000", "registry:5000"),
        ("registry:5000/", "registry:5000"),
        ("https://registry.example.org/v2/", "registry.example.org"),
    ],
)
def test_a_registry_is_named_as_images_name_it(given: str, registry: str) -> None:
    login = {"username": "u", "password": "p"}
    assert read_config("docker", {"registry_auth": {given: login}}) == {"registry_auth": {registry: login}}
    with pytest.raises(ValidationFailed, match="names a registry twice"):
        read_config("docker", {"registry_auth": {given: login, f"{registry}//": login}})


def test_capabilities_are_named_with_and_without_their_prefix() -> None:
    assert read_config("docker", {"capabilities": ["cap_chown", "SETUID"]}) == {"capabilities": ["CHOWN", "SETUID"]}


def test_secrets_are_hidden_and_survive_a_round_trip() -> None:
    stored = {
        "url": "https://engine:2376",
        "tls": {"cert": "public", "key": "private"},
        "registry_auth": {"r.io": {"username": "me", "password": "secret"}},
    }
    shown = hide_secrets(stored, DockerConfig)
    assert shown["tls"] == {"cert": "public", "key": SECRET_MASK}
    assert shown["registry_auth"] == {"r.io": {"username": "me", "password": SECRET_MASK}}
    assert "private" not in str(shown)
    assert keep_secrets(shown, stored) == stored
    shown["tls"]["key"] = "new"
    assert keep_secrets(shown, stored)["tls"]["key"] == "new"


# ------------------------------------------------------------------ executors


SPEC = LaunchSpec(1, 2, "cm-x-1-2", "busybox:test", ("echo", "hi"), {"A": "b"}, 64, 500)


def test_a_container_is_bounded_and_without_privileges() -> None:
    settings = container_settings(SPEC, DockerConfig(), "x")
    limits = settings["HostConfig"]
    assert limits["Memory"] == limits["MemorySwap"] == 64 * 1024 * 1024
    assert limits["NanoCpus"] == 500_000_000
    assert limits["CapDrop"] == ["ALL"]
    assert limits["SecurityOpt"] == ["no-new-privileges:true"]
    assert limits["NetworkMode"] == "none"
    assert "Mounts" not in limits
    assert settings["Env"] == ["A=b", "CONTAINER_MANAGER_JOB=1", "CONTAINER_MANAGER_ATTEMPT=2"]
    assert not settings.keys() & {"Entrypoint", "WorkingDir", "User"}
    assert settings["Labels"]["container-manager.job"] == "1"


@pytest.mark.parametrize(
    ("image", "tagged", "registry"),
    [
        ("busybox", "busybox:latest", "docker.io"),
        ("team/app:1", "team/app:1", "docker.io"),
        ("r.io:5000/app", "r.io:5000/app:latest", "r.io:5000"),
        ("localhost/app@sha256:0", "localhost/app@sha256:0", "localhost"),
    ],
)
def test_an_image_has_a_tag_and_a_registry(image: str, tagged: str, registry: str) -> None:
    assert (with_tag(image), registry_of(image)) == (tagged, registry)


@pytest.mark.parametrize("url", ["unix:///no/such.sock", "tcp://127.0.0.1:1", "https://127.0.0.1:1"])
async def test_an_engine_that_is_not_there_is_a_connection_error(url: str) -> None:
    executor = DockerExecutor(ExecutorSettings("gone", {"url": url}))
    with pytest.raises(ExecutorConnectionError, match=r"host gone: .* cannot be reached: [A-Z]"):
        await executor.health_check()
    await executor.aclose()


async def test_bad_certificates_are_a_configuration_error() -> None:
    config = {"url": "tcp://127.0.0.1:1", "tls": {"ca": "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----"}}
    with pytest.raises(ExecutorConfigurationError, match=r"config\.tls"):
        await DockerExecutor(ExecutorSettings("tls", config)).health_check()
    missing = {"url": "tcp://127.0.0.1:1", "tls": {"cert": "/no/such.pem", "key": "/no/such.key", "verify": False}}
    with pytest.raises(ExecutorConfigurationError, match=r"config\.tls"):
        await DockerExecutor(ExecutorSettings("tls", missing)).health_check()
    assert ssl.OPENSSL_VERSION


def simulated(**config: object) -> SimulatedExecutor:
    return SimulatedExecutor(ExecutorSettings("sim", {"launch_ms": 0, "run_ms": 10, **config}))


async def run(executor: SimulatedExecutor, *command: str) -> tuple[int | None, list[str]]:
    spec = LaunchSpec(1, 1, "cm-x-1-1", "image", command)
    execution = Execution(await executor.create(spec), spec)
    await executor.start(execution)
    status = await executor.wait(execution)
    return status.exit_code, [line.text for line in await executor.logs(execution)]


async def test_a_simulated_job_does_what_its_command_says() -> None:
    assert await run(simulated(), "sh", "-c", "echo one; sleep 0.02; echo two; exit 7; echo never") == (
        7,
        ["one", "two"],
    )
    assert await run(simulated(exit_code=4)) == (4, [])


async def test_a_simulated_job_survives_a_restart() -> None:
    first = simulated(run_ms=50)
    execution = Execution(await first.create(SPEC), SPEC)
    await first.start(execution)
    after_restart = simulated(run_ms=50)
    status = await after_restart.wait(execution)
    assert (status.state, status.exit_code) == (ExecutionState.EXITED, 0)
    assert (status.finished_at - status.started_at).total_seconds() == pytest.approx(0.05)


async def test_a_simulated_job_can_be_stopped() -> None:
    executor = simulated(run_ms=60_000)
    # The id has the millisecond of its creation.
    with patch("container_manager.executors.simulated.time.time_ns", return_value=time.time_ns()):
        execution = Execution(await executor.create(SPEC), SPEC)
        assert await executor.create(SPEC) == execution.id
    await executor.start(execution)
    waiting = asyncio.create_task(executor.wait(execution))
    assert (await executor.get_capacity_info())["current_jobs"] == 1
    await executor.stop(execution, 1)
    assert (await waiting).exit_code == 143
    await executor.remove(execution.id)
    assert await executor.find(SPEC) is None


async def test_simulated_faults_come_as_configured() -> None:
    with pytest.raises(ExecutorOperationError):
        await simulated(fail_launch=1).create(SPEC)
    with pytest.raises(ExecutorConnectionError):
        await simulated(healthy=False).health_check()
    with pytest.raises(ExecutorConfigurationError, match="sleep soon"):
        await run(simulated(), "sleep soon")
    for endless in ("inf", "-1", "1e300", "nan"):
        with pytest.raises(ExecutorConfigurationError, match=f"sleep {endless}"):
            await run(simulated(), f"sleep {endless}")
    with pytest.raises(ExecutorOperationError, match="not an execution"):
        await simulated().status(Execution("nonsense", SPEC))
