"""What every executor owes: the same tests on real engines, a local Cloud Run, and the simulated one."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace

import pytest

from container_manager.executors.base import (
    ContainerExecutor,
    Execution,
    ExecutionState,
    ExecutionStatus,
    ExecutorSettings,
    LaunchSpec,
)
from container_manager.executors.cloudrun import CloudRunExecutor
from container_manager.executors.docker import DockerExecutor
from container_manager.executors.exceptions import (
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorHostError,
)
from container_manager.executors.simulated import SimulatedExecutor
from tests.cloudrun import CloudRun, hurry
from tests.eventually import eventually

# The simulator takes all settings, closes no connections, and keeps what was created in memory.
real = pytest.mark.parametrize("make", ["docker", "podman", "cloudrun"], indirect=True)
numbers = itertools.count(1)
Make = Callable[..., ContainerExecutor]


def simulated() -> Make:
    return lambda **more: SimulatedExecutor(settings({"accept": "any", "launch_ms": 0}, **more))


def settings(config: dict[str, object], **more: object) -> ExecutorSettings:
    return ExecutorSettings("host", config, instance="contract", **more)


@pytest.fixture(params=["docker", "podman", "cloudrun", "simulated"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes executors of one kind that share one place."""
    if request.param in {"docker", "podman"}:
        engine = request.getfixturevalue("engine" if request.param == "docker" else "podman")
        return lambda **more: DockerExecutor(settings({"url": engine.url}, **more))
    if request.param == "cloudrun":
        server, patch = request.getfixturevalue("cloudrun"), request.getfixturevalue("monkeypatch")
        hurry(patch)
        return lambda **more: CloudRunExecutor(settings(server.config(), **more))
    return simulated()


@pytest.fixture
async def executor(make: Make) -> AsyncIterator[ContainerExecutor]:
    made = make()
    yield made
    for owned in await made.list_owned():
        await made.stop(owned.as_execution(), 0)
        await made.remove(owned.id)
    await made.aclose()


def spec(script: str, **more: object) -> LaunchSpec:
    number = next(numbers)
    values = {"memory_mb": 32, "cpu_millis": 100, "timeout_seconds": 60, **more}
    return LaunchSpec(number, 1, f"cm-contract-{number}-1", "busybox:test", ("sh", "-c", script), **values)


async def created(executor: ContainerExecutor, script: str, **more: object) -> Execution:
    wanted = spec(script, **more)
    return Execution(await executor.create(wanted), wanted)


async def started(executor: ContainerExecutor, script: str, **more: object) -> Execution:
    execution = await created(executor, script, **more)
    if await executor.start(execution) is ExecutionState.STARTING:
        status = await executor.wait(execution, ExecutionState.STARTING)
        assert status.state in {ExecutionState.RUNNING, ExecutionState.EXITED}
    return execution


async def ended(executor: ContainerExecutor, script: str, **more: object) -> tuple[Execution, ExecutionStatus]:
    execution = await started(executor, script, **more)
    return execution, await asyncio.wait_for(executor.wait(execution), 20)


async def test_it_is_healthy_and_counts_what_runs(executor: ContainerExecutor) -> None:
    assert await executor.health_check() is True
    before = await executor.get_capacity_info()
    assert before["current_jobs"] == 0
    assert before["available_slots"] == before["max_jobs"] == 10
    await started(executor, "sleep 30")
    after = await executor.get_capacity_info()
    assert (after["current_jobs"], after["available_slots"]) == (1, 9)


@pytest.mark.parametrize("code", [0, 3])
async def test_an_execution_is_found_at_each_step_of_its_way(executor: ContainerExecutor, code: int) -> None:
    wanted = spec(f"sleep 0.6; exit {code}")
    assert await executor.find(wanted) is None
    execution = Execution(await executor.create(wanted), wanted)
    assert (await executor.find(wanted)).id == execution.id
    await executor.start(execution)
    running = await executor.wait(execution, ExecutionState.STARTING)
    assert running.state is ExecutionState.RUNNING
    assert running.exit_code is running.finished_at is None
    over = await asyncio.wait_for(executor.wait(execution), 20)
    assert (over.state, over.exit_code, over.error, over.timed_out) == (ExecutionState.EXITED, code, "", False)
    assert 0.4 < (over.finished_at - over.started_at).total_seconds() < 5
    assert await executor.status(execution) == over == await executor.explain(execution, over)
    assert (await executor.find(wanted)).state is ExecutionState.EXITED
    (owned,) = await executor.list_owned()
    assert (owned.id, owned.job_id, owned.attempt, owned.state) == (
        execution.id, wanted.job_id, 1, ExecutionState.EXITED,
    )  # fmt: skip
    await executor.remove(execution.id)
    await executor.remove(execution.id)
    assert await executor.list_owned() == []


async def test_output_is_kept_stream_by_stream_and_followed_from_any_moment(executor: ContainerExecutor) -> None:
    execution = await started(executor, "echo one; sleep 1; echo two")
    async with aclosing(executor.follow(execution)) as lines:
        followed = [line async for line in lines]
    assert [(line.stream, line.text) for line in followed] == [("stdout", "one"), ("stdout", "two")]
    assert [line.text for line in await executor.logs(execution)] == ["one", "two"]
    async with aclosing(executor.follow(execution, followed[1].at_ns)) as lines:
        assert [line.text async for line in lines] == ["two"]


async def test_what_is_stopped_ends_and_what_has_ended_is_left_as_it_is(executor: ContainerExecutor) -> None:
    execution = await started(executor, "sleep 60")
    waiting = asyncio.create_task(executor.wait(execution))
    assert await executor.stop(execution, 0) is True
    over = await asyncio.wait_for(waiting, 20)
    assert over.state is ExecutionState.EXITED
    assert over.exit_code != 0
    done, _ = await ended(executor, "exit 4")
    assert await executor.stop(done, 0) is False
    assert (await executor.status(done)).exit_code == 4


async def test_many_are_waited_for_at_once(executor: ContainerExecutor) -> None:
    found = await asyncio.gather(*(ended(executor, f"sleep 0.{number}; exit {number}") for number in range(6)))
    assert [status.exit_code for _, status in found] == [0, 1, 2, 3, 4, 5]
    assert len({execution.id for execution, _ in found}) == 6


@real
async def test_another_executor_takes_over_where_one_left_off(executor: ContainerExecutor, make: Make) -> None:
    running, prepared = await started(executor, "sleep 1; exit 7"), await created(executor, "true")
    other = make()
    assert {owned.id for owned in await other.list_owned()} == {running.id, prepared.id}
    assert (await other.find(prepared.spec)).state is ExecutionState.CREATED
    assert (await asyncio.wait_for(other.wait(running), 20)).exit_code == 7
    await other.aclose()


async def test_an_execution_that_was_never_started_is_known_as_such(executor: ContainerExecutor) -> None:
    execution = await created(executor, "true")
    await executor.remove(execution.id)
    assert await executor.has_run(execution) is False


@real
async def test_what_has_run_and_is_gone_is_not_taken_for_new(executor: ContainerExecutor) -> None:
    execution, _ = await ended(executor, "true")
    await executor.remove(execution.id)
    assert await executor.status(execution) is None
    assert await executor.has_run(execution) is True
    with pytest.raises(ExecutorError):
        await executor.start(execution)


@real
async def test_settings_that_cannot_work_are_the_jobs_mistake(executor: ContainerExecutor) -> None:
    wanted = spec("true")
    missing = replace(wanted, image="Not An Image")
    with pytest.raises(ExecutorConfigurationError, match=r"(?i)image|reference") as caught:
        await executor.create(missing)
    assert not isinstance(caught.value, ExecutorHostError)


@real
async def test_hanging_up_ends_every_wait(make: Make) -> None:
    executor = make()
    execution = await started(executor, "sleep 30")
    waiting = [asyncio.create_task(executor.wait(execution)) for _ in range(3)]
    await asyncio.sleep(0)
    await eventually(lambda: executor.watcher.is_watching)
    await executor.aclose()
    await executor.aclose()
    for answer in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(answer, ExecutorConnectionError), answer
    for late in (executor.status(execution), executor.logs(execution)):
        with pytest.raises(ExecutorConnectionError):
            await late
    again = make()
    await again.stop(execution, 0)
    await again.remove(execution.id)
    await again.aclose()


async def test_a_host_that_does_not_exist_is_reported_soon(make: Make) -> None:
    kind = type(make())
    configs = {
        DockerExecutor: {"url": "tcp://127.0.0.1:1"},
        CloudRunExecutor: CloudRun().config(endpoint="127.0.0.1:1"),
        SimulatedExecutor: {"healthy": False},
    }
    executor, began = kind(settings(configs[kind], call_timeout=1)), time.monotonic()
    with pytest.raises(ExecutorConnectionError):
        await executor.health_check()
    assert time.monotonic() - began < 5
    await executor.aclose()
