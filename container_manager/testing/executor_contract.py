"""What every executor owes, as tests: subclass `ExecutorContract`, and give it a fixture `make`.

class TestMine(ExecutorContract):
    survives = False
    unreachable = {"url": "tcp://127.0.0.1:1"}

    @pytest.fixture
    def make(self) -> Make:
        return lambda **more: MyExecutor(settings({}, **more))
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from container_manager.executors.base import (
    ContainerExecutor,
    Execution,
    ExecutionState,
    ExecutionStatus,
    ExecutorSettings,
    LaunchSpec,
)
from container_manager.executors.exceptions import (
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorHostError,
)

Make = Callable[..., ContainerExecutor]
WAIT_SECONDS = 20.0

numbers = itertools.count(1)


def settings(config: Mapping[str, Any], **more: Any) -> ExecutorSettings:
    """What the executors of these tests are built from."""
    return ExecutorSettings("host", config, instance="contract", **more)


class ExecutorContract:
    """The tests. The scripts that they run are `sh -c SCRIPT` with sleep, echo and exit, joined by semicolons."""

    survives: ClassVar[bool] = True
    """Whether its executions outlive the executor, and are known to another one with the same settings."""

    refuses_images: ClassVar[bool] = True
    """Whether an image that cannot exist is refused."""

    image: ClassVar[str] = "busybox:test"

    unreachable: ClassVar[Mapping[str, Any]]
    """A config with which the host does not answer."""

    @pytest.fixture
    def make(self) -> Make:
        """Makes executors that share one place; it takes fields of ExecutorSettings."""
        raise NotImplementedError

    @pytest.fixture
    async def executor(self, make: Make) -> AsyncIterator[ContainerExecutor]:
        """An executor on an empty host."""
        made = make()
        yield made
        for owned in await made.list_owned():
            await made.stop(owned.as_execution(), 0)
            await made.remove(owned.id)
        await made.aclose()

    async def watched(self, executor: ContainerExecutor) -> None:  # noqa: ARG002 - for subclasses
        """Wait until what an executor waits with is ready, such as a connection that is made in the background."""
        await asyncio.sleep(0)

    def spec(self, script: str, **more: Any) -> LaunchSpec:
        """A job that runs a script."""
        number = next(numbers)
        values = {"memory_mb": 32, "cpu_millis": 100, "timeout_seconds": 60, **more}
        return LaunchSpec(number, 1, f"cm-contract-{number}-1", self.image, ("sh", "-c", script), **values)

    async def created(self, executor: ContainerExecutor, script: str, **more: Any) -> Execution:
        """An execution that was not started."""
        wanted = self.spec(script, **more)
        return Execution(await executor.create(wanted), wanted)

    async def started(self, executor: ContainerExecutor, script: str, **more: Any) -> Execution:
        """An execution that runs, or has run."""
        execution = await self.created(executor, script, **more)
        if await executor.start(execution) is ExecutionState.STARTING:
            status = await executor.wait(execution, ExecutionState.STARTING)
            assert status is not None
            assert status.state in {ExecutionState.RUNNING, ExecutionState.EXITED}
        return execution

    async def ended(self, executor: ContainerExecutor, script: str, **more: Any) -> tuple[Execution, ExecutionStatus]:
        """An execution that has ended."""
        execution = await self.started(executor, script, **more)
        status = await asyncio.wait_for(executor.wait(execution), WAIT_SECONDS)
        assert status is not None
        return execution, status

    async def test_it_is_healthy_and_counts_what_runs(self, executor: ContainerExecutor) -> None:
        assert await executor.health_check() is True
        before = await executor.get_capacity_info()
        assert before["current_jobs"] == 0
        assert before["available_slots"] == before["max_jobs"] == 10
        await self.started(executor, "sleep 30")
        after = await executor.get_capacity_info()
        assert (after["current_jobs"], after["available_slots"]) == (1, 9)

    @pytest.mark.parametrize("code", [0, 3])
    async def test_an_execution_is_found_at_each_step_of_its_way(self, executor: ContainerExecutor, code: int) -> None:
        wanted = self.spec(f"sleep 0.6; exit {code}")
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

    async def test_output_is_kept_stream_by_stream_and_followed_from_any_moment(
        self, executor: ContainerExecutor
    ) -> None:
        execution = await self.started(executor, "echo one; sleep 1; echo two")
        async with aclosing(executor.follow(execution)) as lines:
            followed = [line async for line in lines]
        assert [(line.stream, line.text) for line in followed] == [("stdout", "one"), ("stdout", "two")]
        assert [line.text for line in await executor.logs(execution)] == ["one", "two"]
        async with aclosing(executor.follow(execution, followed[1].at_ns)) as lines:
            assert [line.text async for line in lines] == ["two"]

    async def test_a_follower_of_what_is_stopped_and_removed_ends(self, executor: ContainerExecutor) -> None:
        execution = await self.started(executor, "echo one; sleep 60; echo two")
        async with aclosing(executor.follow(execution)) as lines:
            assert (await asyncio.wait_for(anext(lines), WAIT_SECONDS)).text == "one"
            after = asyncio.create_task(anext(lines, None))
            await executor.stop(execution, 0)
            await executor.remove(execution.id)
            assert await asyncio.wait_for(after, WAIT_SECONDS) is None

    async def test_what_is_stopped_ends_and_what_has_ended_is_left_as_it_is(self, executor: ContainerExecutor) -> None:
        execution = await self.started(executor, "sleep 60")
        waiting = asyncio.create_task(executor.wait(execution))
        assert await executor.stop(execution, 0) is True
        over = await asyncio.wait_for(waiting, 20)
        assert over.state is ExecutionState.EXITED
        assert over.exit_code != 0
        done, _ = await self.ended(executor, "exit 4")
        assert await executor.stop(done, 0) is False
        assert (await executor.status(done)).exit_code == 4

    async def test_many_are_waited_for_at_once(self, executor: ContainerExecutor) -> None:
        found = await asyncio.gather(*(self.ended(executor, f"sleep 0.{number}; exit {number}") for number in range(6)))
        assert [status.exit_code for _, status in found] == [0, 1, 2, 3, 4, 5]
        assert len({execution.id for execution, _ in found}) == 6

    async def test_another_executor_takes_over_where_one_left_off(
        self, executor: ContainerExecutor, make: Make
    ) -> None:
        if not self.survives:
            return
        running, prepared = await self.started(executor, "sleep 1; exit 7"), await self.created(executor, "true")
        other = make()
        assert {owned.id for owned in await other.list_owned()} == {running.id, prepared.id}
        assert (await other.find(prepared.spec)).state is ExecutionState.CREATED
        assert (await asyncio.wait_for(other.wait(running), 20)).exit_code == 7
        await other.aclose()

    async def test_an_execution_that_was_never_started_is_known_as_such(self, executor: ContainerExecutor) -> None:
        execution = await self.created(executor, "true")
        await executor.remove(execution.id)
        assert await executor.has_run(execution) is False

    async def test_what_has_run_and_is_gone_is_not_taken_for_new(self, executor: ContainerExecutor) -> None:
        if not self.survives:
            return
        execution, _ = await self.ended(executor, "true")
        await executor.remove(execution.id)
        assert await executor.status(execution) is None
        assert await executor.has_run(execution) is True
        with pytest.raises(ExecutorError):
            await executor.start(execution)

    async def test_settings_that_cannot_work_are_the_jobs_mistake(self, executor: ContainerExecutor) -> None:
        if not self.refuses_images:
            return
        wanted = self.spec("true")
        missing = replace(wanted, image="Not An Image")
        with pytest.raises(ExecutorConfigurationError, match=r"(?i)image|reference") as caught:
            await executor.create(missing)
        assert not isinstance(caught.value, ExecutorHostError)

    async def test_hanging_up_ends_every_wait(self, make: Make) -> None:
        if not self.survives:
            return
        executor = make()
        execution = await self.started(executor, "sleep 30")
        waiting = [asyncio.create_task(executor.wait(execution)) for _ in range(3)]
        await self.watched(executor)
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

    async def test_a_host_that_does_not_answer_is_reported_soon(self, make: Make) -> None:
        executor, began = type(make())(settings(self.unreachable, call_timeout=1)), time.monotonic()
        with pytest.raises(ExecutorConnectionError):
            await executor.health_check()
        assert time.monotonic() - began < 5
        await executor.aclose()
