"""Images from a real registry: pulled, private, missing, and by policy."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from container_manager.executors.base import Execution, ExecutionState, ExecutorSettings, LaunchSpec
from container_manager.executors.docker import DockerExecutor
from container_manager.executors.exceptions import (
    ExecutorAuthenticationError,
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorOperationError,
)
from tests.engines import Engine
from tests.eventually import eventually

Make = Callable[..., DockerExecutor]
LOGIN = {"username": "me", "password": "swordfish"}


@pytest.fixture(scope="module")
def registry(engine: Engine) -> str:
    name = engine.serve_registry(5000)
    engine.push(f"{name}/team/app:1")
    engine.push(f"{name}/team/app:latest")
    return name


@pytest.fixture(scope="module")
def private(engine: Engine) -> str:
    name = engine.serve_registry(5001, "me:swordfish")
    engine.push(f"{name}/secret:1", LOGIN)
    return name


@pytest.fixture
async def executor(engine: Engine) -> AsyncIterator[Make]:
    """Make executors with a config; they are closed at the end."""
    made: list[DockerExecutor] = []

    def make(**config: object) -> DockerExecutor:
        settings = ExecutorSettings("here", {"url": engine.url, **config}, instance="images", pull_timeout=30)
        made.append(DockerExecutor(settings))
        return made[-1]

    yield make
    for docker in made:
        await docker.aclose()


def spec(image: str, number: int = 1) -> LaunchSpec:
    return LaunchSpec(number, 1, f"cm-images-{number}", image, ("echo", "pulled"), {}, 32, 100)


async def run(docker: DockerExecutor, image: str) -> list[str]:
    await docker.prepare(spec(image))
    execution = Execution(await docker.create(spec(image)), spec(image))
    await docker.start(execution)
    assert (await docker.wait(execution)).exit_code == 0
    lines = [line.text for line in await docker.logs(execution)]
    await docker.remove(execution.id)
    return lines


@pytest.mark.parametrize("policy", ["if-not-present", "always"])
async def test_an_image_is_pulled_when_it_is_not_there(executor: Make, registry: str, policy: str) -> None:
    assert await run(executor(pull=policy), f"{registry}/team/app:1") == ["pulled"]
    assert await run(executor(pull=policy), f"{registry}/team/app:1") == ["pulled"]


async def test_an_image_without_a_tag_is_the_latest(executor: Make, registry: str) -> None:
    assert await run(executor(), f"{registry}/team/app") == ["pulled"]


async def test_a_private_image_needs_credentials(executor: Make, private: str) -> None:
    image = f"{private}/secret:1"
    for logins in ({}, {private: {**LOGIN, "password": "wrong"}}):
        with pytest.raises(ExecutorAuthenticationError, match=rf"^image: registry {private} refused host here"):
            await run(executor(registry_auth=logins), image)
    assert await run(executor(registry_auth={private: LOGIN}), image) == ["pulled"]


@pytest.mark.parametrize("missing", ["team/app:2", "team/nothing:1"])
async def test_an_image_that_does_not_exist_is_named(executor: Make, registry: str, missing: str) -> None:
    with pytest.raises(
        ExecutorConfigurationError, match=rf"^image: '{registry}/{missing}' does not exist in {registry}"
    ):
        await run(executor(), f"{registry}/{missing}")


async def test_a_registry_that_is_down_is_the_hosts_fault(executor: Make) -> None:
    with pytest.raises(ExecutorOperationError, match=r"^image: host here could not pull '127.0.0.1:1/app:1'"):
        await run(executor(), "127.0.0.1:1/app:1")


async def test_a_container_is_found_by_its_attempt_until_it_is_removed(executor: Make) -> None:
    docker = executor()
    job = spec("busybox:test", 2)
    first = await docker.create(job)
    (owned,) = [execution for execution in await docker.list_owned() if execution.job_id == 2]
    assert (owned.id, owned.attempt, owned.state.value) == (first, 1, "created")
    assert (await docker.find(job)).id == first
    await docker.remove(first)
    assert await docker.find(job) is None
    assert await docker.status(Execution(first, job)) is None
    assert await docker.wait(Execution(first, job)) is None
    await docker.stop(Execution(first, job), 0)
    await docker.remove(first)


async def test_each_container_is_new_and_never_one_that_was_there(executor: Make, engine: Engine) -> None:
    docker = executor()
    job = spec("busybox:test", 7)
    foreign = engine.create_container(job.name, ["echo", "I am foreign"])
    first, second = await docker.create(job), await docker.create(job)
    assert len({foreign, first, second}) == 3
    for container in (first, second, foreign):
        await docker.remove(container)


async def test_what_was_restarted_by_hand_while_no_worker_watched_has_ended(executor: Make, engine: Engine) -> None:
    first, job = (
        executor(),
        replace(spec("busybox:test", 9), command=("sleep", "60")),
    )
    execution = Execution(await first.create(job), job)
    await first.start(execution)
    await eventually(engine.running, what="it runs")
    await first.aclose()
    await asyncio.to_thread(engine.restart_container, execution.id)
    second = executor()
    assert (await second.status(execution)).state is ExecutionState.RUNNING
    await second.recall(execution)
    status = await second.status(execution)
    assert (status.state, status.runs_again) == (ExecutionState.EXITED, True)
    assert status.exit_code in {137, 143}, "the signal may come before the program can take it"
    await second.stop(execution, 0)
    await second.remove(execution.id)


async def test_settings_that_the_engine_refuses_are_a_configuration_error(executor: Make) -> None:
    docker = executor(network="no-such-network")
    job = spec("busybox:test", 3)
    execution = Execution(await docker.create(job), job)
    with pytest.raises(ExecutorConfigurationError, match="no-such-network"):
        await docker.start(execution)
    await docker.remove(execution.id)
    with pytest.raises(ExecutorConfigurationError, match="working directory"):
        await docker.create(replace(spec("busybox:test", 4), working_dir="not/absolute"))


async def test_more_cores_than_the_engine_has_are_all_of_them(executor: Make, engine: Engine) -> None:
    docker = executor()
    created = await docker.create(replace(spec("busybox:test", 8), cpu_millis=64_000))
    assert 0 < engine.inspect(created)["HostConfig"]["NanoCpus"] <= 64_000 * 10**6
    await docker.remove(created)


async def test_long_lines_and_odd_bytes_come_whole(executor: Make) -> None:
    docker = executor()
    script = "head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'a\\377b\\n'; echo last; printf 'no newline'"
    job = LaunchSpec(5, 1, "cm-images-5", "busybox:test", ("sh", "-c", script), {}, 32, 500)
    execution = Execution(await docker.create(job), job)
    await docker.start(execution)
    await docker.wait(execution)
    lines = [line.text for line in await docker.logs(execution)]
    assert lines == ["x" * 40000, "a\ufffdb", "last", "no newline"]
    await docker.remove(execution.id)


async def test_a_paused_engine_is_a_connection_error_within_the_deadline(other_engine: Engine) -> None:
    settings = ExecutorSettings("slow", {"url": other_engine.url}, call_timeout=0.5, launch_timeout=0.5)
    docker = DockerExecutor(settings)
    assert await docker.health_check()
    other_engine.pause()
    with pytest.raises(ExecutorConnectionError, match=r"host slow: no answer in 0.5 s while"):
        await docker.health_check()
    with pytest.raises(ExecutorConnectionError, match=r"no answer in 0.5 s while creating"):
        await docker.create(spec("busybox:test"))
    other_engine.resume()
    await docker.aclose()


async def test_an_engine_that_counts_what_has_ended_as_running_is_not_believed(executor: Make, engine: Engine) -> None:
    docker = executor()
    job = spec("busybox:test", 6)
    execution = Execution(await docker.create(job), job)
    engine.hear_of_start(execution.id)
    await eventually(engine.running, what="the engine says that it runs")
    status = await asyncio.wait_for(docker.wait(execution), 20)
    assert (status.state, status.interrupted) == (ExecutionState.EXITED, True)
    assert status.error == "The engine of host here was restarted, which ended the container."
    # Stopping makes the engine notice; the end that it then reports is not the job's own either.
    await docker.stop(execution, 0)
    status = await docker.explain(execution, await docker.status(execution))
    assert (status.state, status.exit_code, status.interrupted) == (ExecutionState.EXITED, 255, True)
    await docker.remove(execution.id)
    assert await docker.status(execution) is None
