"""What an engine's errors and answers mean, without an engine."""

import errno
import ssl
from datetime import UTC, datetime
from itertools import pairwise

import aiohttp
import pytest
from aiodocker import DockerError

from container_manager.executors.base import ExecutionState, ExecutionStatus, LaunchSpec
from container_manager.executors.configs import DockerConfig
from container_manager.executors.docker.errors import launch_error, pull_error, reason_of, status_of
from container_manager.executors.docker.frames import nanoseconds
from container_manager.executors.docker.pull import Layers
from container_manager.executors.docker.settings import MEBIBYTE, container_settings
from container_manager.executors.docker.status import owned_execution, parse_time, status_of_container
from container_manager.executors.exceptions import (
    ExecutorAuthenticationError,
    ExecutorConfigurationError,
    ExecutorError,
    ExecutorHostError,
    ExecutorImageError,
    ExecutorLackError,
    ExecutorOperationError,
    ExecutorPlatformError,
    ExecutorPullQuotaError,
)

NEVER = "0001-01-01T00:00:00Z"
STARTED, FINISHED = "2026-11-27T10:00:00.123456789Z", "2026-11-27T10:00:05Z"
SPEC = LaunchSpec(7, 2, "container-manager-7-2", "busybox:1", ["true"], {"A": "b"}, 256, 500)


def refused(status: int, text: str) -> ExecutorOperationError:
    """An engine's answer, as the client raises it."""
    error = ExecutorOperationError(text)
    error.__cause__ = DockerError(status, text)
    return error


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "invalid mount config for type bind: bind source path does not exist: /data", ExecutorHostError),
        (404, "network home not found", ExecutorHostError),
        (404, "network team not found", ExecutorLackError),
        (500, 'exec: "docker-init": executable file not found in $PATH', ExecutorHostError),
        (500, "write /var/lib/docker/tmp: no space left on device", ExecutorHostError),
        (400, "No command specified", ExecutorConfigurationError),
        (400, "invalid reference format", ExecutorConfigurationError),
        (404, "No such image: busybox:2", ExecutorConfigurationError),
        (500, "unable to find user alice: no matching entries in passwd file", ExecutorConfigurationError),
        (500, "uids and gids must be in range 0-2147483647", ExecutorConfigurationError),
        (500, "mkdir /bin/sh: is not a directory", ExecutorConfigurationError),
        (500, "shim error", ExecutorOperationError),
        # An engine that is killed during a start blames the job.
        (400, "exec: sh: no such file or directory", ExecutorOperationError),
        (500, "no such file or directory", ExecutorOperationError),
        (409, "the container is marked for removal", ExecutorOperationError),
    ],
)
def test_a_refused_launch_is_caused_by_the_host_the_job_or_the_engine(
    status: int, text: str, kind: type[ExecutorError]
) -> None:
    assert type(launch_error(refused(status, text), "one", "create", network="team")) is kind


def test_a_refused_launch_names_what_to_change() -> None:
    error = launch_error(refused(404, "network team not found"), "one", "the container cannot be created")
    assert str(error) == "host one: the container cannot be created: network team not found"
    assert str(launch_error(refused(400, "No command specified"), "one", "create")).startswith("command: ")


def test_an_error_without_an_answer_has_no_status() -> None:
    assert status_of(ExecutorOperationError("a stream ended")) == 0
    assert status_of(refused(409, "conflict")) == 409


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (500, "unauthorized: authentication required", ExecutorAuthenticationError),
        (500, "no basic auth credentials", ExecutorAuthenticationError),
        (404, "pull access denied for team/app", ExecutorAuthenticationError),
        (403, "Forbidden", ExecutorAuthenticationError),
        (404, "whatever the registry says", ExecutorConfigurationError),
        (500, "manifest unknown", ExecutorConfigurationError),
        (500, "repository does not exist", ExecutorConfigurationError),
        (500, "toomanyrequests: You have reached your pull rate limit", ExecutorPullQuotaError),
        (404, "no matching manifest for linux/amd64 in the manifest list entries", ExecutorPlatformError),
        (500, "denied: requested access to the resource is denied", ExecutorAuthenticationError),
        (500, "error parsing HTTP 403 response body: denied", ExecutorAuthenticationError),
        (500, "mkdir /var/lib/docker/tmp: permission denied", ExecutorImageError),
        (500, "connection reset by peer", ExecutorImageError),
        (0, "unexpected EOF", ExecutorImageError),
    ],
)
def test_a_failed_pull_is_caused_by_credentials_the_reference_or_the_way(
    status: int, text: str, kind: type[ExecutorError]
) -> None:
    error = pull_error(refused(status, text), "one", "quay.io/team/app:1", "quay.io")
    assert type(error) is kind
    assert "quay.io/team/app:1" in str(error)
    assert text in str(error)


def test_missing_credentials_name_the_setting() -> None:
    error = pull_error(refused(401, "unauthorized"), "one", "quay.io/a", "quay.io")
    assert "Set config.registry_auth for quay.io" in str(error)


def chained(*errors: BaseException) -> BaseException:
    """The errors, each the cause of the one before."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def test_the_reason_of_an_unreachable_address_is_the_systems() -> None:
    refused_connection = OSError(errno.ECONNREFUSED, "Connect call failed")
    assert reason_of(chained(DockerError(900, "unreachable"), refused_connection)) == "Connection refused"
    assert reason_of(OSError(errno.ENOENT, "x")) == "No such file or directory"
    # Errors of name resolution have negative numbers, which the system cannot describe.
    assert reason_of(OSError(-2, "Name or service not known")) == "Name or service not known"
    assert reason_of(aiohttp.ServerDisconnectedError()) == "no connection"


def test_the_reason_of_a_failed_handshake_is_that_of_tls() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "unable to get local issuer certificate"
    outer = OSError(errno.ECONNRESET, "reset")
    assert reason_of(chained(outer, error)) == "TLS: unable to get local issuer certificate"


# ------------------------------------------------------------------ states


@pytest.mark.parametrize(
    ("name", "finished_at", "state"),
    [
        ("created", NEVER, ExecutionState.CREATED),
        ("running", NEVER, ExecutionState.RUNNING),
        ("paused", NEVER, ExecutionState.RUNNING),
        ("restarting", FINISHED, ExecutionState.RUNNING),
        ("removing", FINISHED, ExecutionState.RUNNING),
        ("exited", FINISHED, ExecutionState.EXITED),
        ("dead", FINISHED, ExecutionState.EXITED),
        # An engine that has forgotten the start calls a container that has ended "created".
        ("created", FINISHED, ExecutionState.EXITED),
    ],
)
def test_the_state_of_a_container(name: str, finished_at: str, state: ExecutionState) -> None:
    found = {"Status": name, "ExitCode": 3, "StartedAt": STARTED, "FinishedAt": finished_at}
    status = status_of_container("abc", found)
    assert (status.id, status.state) == ("abc", state)
    is_ended = state is ExecutionState.EXITED
    assert status.exit_code == (3 if is_ended else None)
    assert (status.finished_at is not None) == is_ended


def test_a_container_that_has_ended_says_when_and_how() -> None:
    state = {"Status": "exited", "ExitCode": 137, "StartedAt": STARTED, "FinishedAt": FINISHED, "OOMKilled": True}
    assert status_of_container("abc", state | {"Error": "x"}) == ExecutionStatus(
        "abc",
        ExecutionState.EXITED,
        exit_code=137,
        started_at=datetime(2026, 11, 27, 10, 0, 0, 123456, tzinfo=UTC),
        finished_at=datetime(2026, 11, 27, 10, 0, 5, tzinfo=UTC),
        out_of_memory=True,
        error="x",
    )


def test_a_container_that_never_started_has_no_times() -> None:
    state = {"Status": "created", "ExitCode": 0, "StartedAt": NEVER, "FinishedAt": NEVER}
    status = status_of_container("abc", state)
    assert (status.started_at, status.finished_at, status.exit_code) == (None, None, None)


@pytest.mark.parametrize(
    "lie",
    [
        {"ExitCode": 10**30}, {"ExitCode": "x"}, {"ExitCode": None}, {"Status": 5}, {"Status": "flying"},
        {"StartedAt": None}, {"FinishedAt": "2026-11-27T10:00:00"}, {"FinishedAt": "0000"}, {"OOMKilled": "perhaps"},
        {"Error": {}},
    ],
)  # fmt: skip
def test_a_state_that_no_engine_gives_is_refused(lie: dict) -> None:
    state = {"Status": "exited", "ExitCode": 1, "StartedAt": STARTED, "FinishedAt": FINISHED}
    with pytest.raises(ValueError):
        status_of_container("abc", state | lie)


def test_the_progress_of_a_pull_is_bounded() -> None:
    layers = Layers("a", "h")
    for at in range(20_000):
        layers.update({"id": f"{at}{'x' * 10_000}", "status": "Pulling fs layer"})
    layers.update({"id": "0" + "x" * 10_000, "status": "Downloading", "progressDetail": {"current": 1e6, "total": 5e6}})
    layers.update({"id": "1" + "x" * 10_000, "status": "Downloading", "progressDetail": {"current": 1e6, "total": 3e6}})
    layers.update({"id": "1" + "x" * 10_000, "status": "Pull complete"})
    assert str(layers) == "Pulling image 'a' to host h: 1 of 1000 layers, 4 of 8 MB."
    assert max(map(len, layers._bytes)) <= 100


@pytest.mark.parametrize(
    ("text", "microsecond", "offset"),
    [
        ("2026-11-27T10:00:00Z", 0, 0),
        ("2026-11-27T10:00:00.5Z", 500_000, 0),
        ("2026-11-27T10:00:00.123456789Z", 123_456, 0),
        ("2026-11-27T10:00:00.123456789+02:00", 123_456, 7200),
    ],
)
def test_times_of_all_forms_are_read(text: str, microsecond: int, offset: int) -> None:
    at = parse_time(text)
    assert at.microsecond == microsecond
    assert at.utcoffset().total_seconds() == offset
    # Log lines keep all nanoseconds.
    assert nanoseconds(text.encode()) // 1000 == round(at.timestamp() * 1_000_000)


def listed(labels: dict[str, str]) -> dict[str, object]:
    class Container(dict):
        id = "abc"

    return Container(Labels=labels, State="running")


def test_a_listed_container_is_that_of_its_labels() -> None:
    owned = owned_execution(listed({"container-manager.job": "7", "container-manager.attempt": "2"}))
    assert (owned.id, owned.job_id, owned.attempt, owned.state) == ("abc", 7, 2, ExecutionState.RUNNING)
    assert owned.as_execution().spec.job_id == 7


@pytest.mark.parametrize(
    "labels",
    [{}, {"container-manager.job": "7"}, {"container-manager.job": "seven", "container-manager.attempt": "2"}],
)
def test_a_container_with_incomplete_labels_is_left_to_its_owner(
    labels: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert owned_execution(listed(labels)) is None
    assert "abc" in caplog.text


# ------------------------------------------------------------------ settings


def test_a_container_is_labelled_with_its_attempt() -> None:
    labels = container_settings(SPEC, DockerConfig(), "here")["Labels"]
    assert labels == {
        "container-manager.instance": "here",
        "container-manager.job": "7",
        "container-manager.attempt": "2",
        "container-manager.memory-mb": "256",
        "container-manager.cpu-millis": "500",
    }


def test_what_a_job_does_not_set_is_left_to_its_image() -> None:
    body = container_settings(SPEC, DockerConfig(), "here")
    assert body["Cmd"] == ["true"]
    assert not {"Entrypoint", "WorkingDir", "User"} & body.keys()
    assert not {"ReadonlyRootfs", "Tmpfs", "Mounts"} & body["HostConfig"].keys()


def test_memory_is_never_less_than_an_engine_accepts() -> None:
    small = container_settings(LaunchSpec(1, 1, "n", "busybox", [], {}, 1, 100), DockerConfig(), "here")["HostConfig"]
    assert small["Memory"] == small["MemorySwap"] == 6 * MEBIBYTE
    assert small["NanoCpus"] == 100_000_000


def test_a_job_may_choose_among_the_networks_and_the_host_decides_otherwise() -> None:
    config = DockerConfig(network="team")
    assert container_settings(SPEC, config, "here")["HostConfig"]["NetworkMode"] == "team"
    chosen = LaunchSpec(7, 2, "n", "busybox", [], {}, 256, 500, network="build")
    assert container_settings(chosen, config, "here")["HostConfig"]["NetworkMode"] == "build"


def test_folders_of_the_host_are_read_only_unless_it_says_otherwise() -> None:
    mounts = {"/data": {"source": "/srv/data"}, "/out": {"source": "/srv/out", "read_only": False}}
    config = DockerConfig.model_validate({"mounts": mounts})
    assert container_settings(SPEC, config, "here")["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": "/srv/data", "Target": "/data", "ReadOnly": True},
        {"Type": "bind", "Source": "/srv/out", "Target": "/out", "ReadOnly": False},
    ]
