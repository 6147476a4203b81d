"""Waiting for many executions at once, with hints and with polls, on a host that may not answer."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping

import pytest

from container_manager.aio import background
from container_manager.executors import watcher as watcher_module
from container_manager.executors.base import ExecutionState, ExecutionStatus
from container_manager.executors.exceptions import ExecutorClosedError, ExecutorConnectionError
from container_manager.executors.watcher import Watcher
from tests.eventually import eventually

RUNNING, STARTING, EXITED = ExecutionState.RUNNING, ExecutionState.STARTING, ExecutionState.EXITED
NEVER = 1000.0


class Host:
    """A host with executions, which counts how it is asked."""

    def __init__(self, **states: ExecutionState) -> None:
        self.states = dict(states)
        self.polls = self.questions = 0
        self.answers = True
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.connections = 0

    async def alive(self, _: Collection[str]) -> Mapping[str, ExecutionState]:
        self.polls += 1
        if not self.answers:
            raise ExecutorConnectionError("no answer")
        return {name: state for name, state in self.states.items() if state is not EXITED}

    async def hints(self) -> AsyncGenerator[str, None]:
        self.connections += 1
        yield ""
        while True:
            if (name := await self.ended.get()) == "broken":
                raise ExecutorConnectionError("connection lost")
            yield name

    def wait(
        self, watcher: Watcher, name: str, seen: ExecutionState = RUNNING
    ) -> "asyncio.Task[ExecutionStatus | None]":
        async def status() -> ExecutionStatus | None:
            self.questions += 1
            return ExecutionStatus(name, self.states[name]) if name in self.states else None

        return asyncio.create_task(watcher.wait(name, seen, status))


async def test_an_execution_that_has_ended_already_needs_no_waiting() -> None:
    host = Host(a=EXITED)
    watcher = Watcher(host.alive, NEVER)
    assert (await asyncio.wait_for(host.wait(watcher, "a"), 10)).state is EXITED
    assert await asyncio.wait_for(host.wait(watcher, "unknown"), 10) is None
    assert host.polls == 0
    assert not watcher.is_watching


async def test_a_poll_finds_an_end_without_any_hint() -> None:
    host = Host(a=RUNNING)
    waiting = host.wait(Watcher(host.alive, 0.01), "a")
    await eventually(lambda: host.polls > 1)
    assert not waiting.done()
    host.states["a"] = EXITED
    assert (await asyncio.wait_for(waiting, 10)).state is EXITED


async def test_a_poll_asks_once_for_all_executions() -> None:
    host = Host(**{f"e{number}": RUNNING for number in range(50)})
    watcher = Watcher(host.alive, 0.01)
    waiting = [host.wait(watcher, name) for name in host.states]
    await eventually(lambda: host.polls > 2)
    # Each execution is asked for once, when it begins to be waited for.
    assert host.questions == 50
    host.states = dict.fromkeys(host.states, EXITED)
    assert len(await asyncio.wait_for(asyncio.gather(*waiting), 10)) == 50


async def test_an_execution_that_is_gone_ends_its_wait() -> None:
    host = Host(a=RUNNING)
    waiting = host.wait(Watcher(host.alive, 0.01), "a")
    await eventually(lambda: host.polls)
    del host.states["a"]
    assert await asyncio.wait_for(waiting, 10) is None


async def test_a_hint_ends_the_wait_at_once() -> None:
    host = Host(a=RUNNING, b=RUNNING)
    watcher = Watcher(host.alive, NEVER, host.hints)
    waiting, other = host.wait(watcher, "a"), host.wait(watcher, "b")
    await eventually(lambda: host.connections)
    host.states["a"] = EXITED
    host.ended.put_nowait("a")
    assert (await asyncio.wait_for(waiting, 10)).state is EXITED
    assert not other.done()
    host.states["b"] = EXITED
    host.ended.put_nowait("b")
    await asyncio.wait_for(other, 10)


async def test_a_hint_that_comes_too_early_is_no_end() -> None:
    host = Host(a=RUNNING)
    waiting = host.wait(Watcher(host.alive, NEVER, host.hints), "a")
    await eventually(lambda: host.questions == 1)
    host.ended.put_nowait("a")
    await eventually(lambda: host.questions == 2)
    assert not waiting.done()
    host.states["a"] = EXITED
    host.ended.put_nowait("a")
    await asyncio.wait_for(waiting, 10)


async def test_a_lost_stream_of_hints_is_opened_again_and_what_it_missed_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watcher_module, "FIRST_PAUSE", 0.01)
    host = Host(a=RUNNING)
    waiting = host.wait(Watcher(host.alive, NEVER, host.hints), "a")
    await eventually(lambda: host.connections == 1)
    # It ends while there is no connection, so no hint is sent.
    host.states["a"] = EXITED
    host.ended.put_nowait("broken")
    assert (await asyncio.wait_for(waiting, 10)).state is EXITED
    assert host.connections == 2


async def test_a_host_that_does_not_answer_ends_no_wait() -> None:
    host = Host(a=RUNNING)
    host.answers = False
    waiting = host.wait(Watcher(host.alive, 0.01), "a")
    await eventually(lambda: host.polls > 1)
    assert not waiting.done()
    host.states["a"] = EXITED
    host.answers = True
    await asyncio.wait_for(waiting, 10)


async def test_an_unexpected_error_of_a_poll_is_logged_and_polling_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = Host(a=RUNNING)
    failed: list[bool] = []

    async def alive(ids: Collection[str]) -> Mapping[str, ExecutionState]:
        if not failed:
            failed.append(True)
            raise KeyError("State")
        return await host.alive(ids)

    waiting = host.wait(Watcher(alive, 0.01), "a")
    await eventually(lambda: host.polls)
    assert "looking for ended executions failed" in caplog.text
    host.states["a"] = EXITED
    await asyncio.wait_for(waiting, 10)


async def test_a_start_is_waited_for_like_an_end() -> None:
    host = Host(a=STARTING)
    waiting = host.wait(Watcher(host.alive, 0.01), "a", STARTING)
    await eventually(lambda: host.polls > 1)
    assert not waiting.done()
    host.states["a"] = RUNNING
    assert (await asyncio.wait_for(waiting, 10)).state is RUNNING


async def test_an_execution_that_falls_back_to_starting_is_waited_for_on() -> None:
    """An engine may report a container as created for a moment after it was seen running."""
    host = Host(a=STARTING)
    waiting = host.wait(Watcher(host.alive, 0.01), "a", RUNNING)
    await eventually(lambda: host.questions > 1)
    assert not waiting.done()
    host.states["a"] = EXITED
    await asyncio.wait_for(waiting, 10)


async def test_two_waits_for_one_execution_both_end() -> None:
    host = Host(a=RUNNING)
    watcher = Watcher(host.alive, 0.01)
    waiting = [host.wait(watcher, "a") for _ in range(2)]
    await eventually(lambda: host.polls)
    host.states["a"] = EXITED
    assert all(status.state is EXITED for status in await asyncio.wait_for(asyncio.gather(*waiting), 10))


async def test_nothing_is_asked_while_nothing_is_waited_for() -> None:
    host = Host(a=RUNNING, b=RUNNING)
    watcher = Watcher(host.alive, 0.01, host.hints)
    first, second = host.wait(watcher, "a"), host.wait(watcher, "b")
    await eventually(lambda: host.polls)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert watcher.is_watching
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert not watcher.is_watching
    # Waiting begins again as if for the first time.
    host.states["a"] = EXITED
    await asyncio.wait_for(host.wait(watcher, "a"), 10)


async def test_closing_wakes_all_waits_with_an_error() -> None:
    host = Host(a=RUNNING, b=RUNNING)
    watcher = Watcher(host.alive, NEVER, host.hints)
    waiting = [host.wait(watcher, name) for name in host.states]
    await eventually(lambda: host.questions == 2)
    await watcher.aclose()
    for outcome in await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10):
        assert isinstance(outcome, ExecutorClosedError)
    assert not watcher.is_watching


async def test_an_error_of_the_status_is_the_waits_own() -> None:
    host = Host(a=RUNNING)
    watcher = Watcher(host.alive, NEVER)

    async def fail() -> ExecutionStatus | None:
        raise ExecutorConnectionError("no answer")

    async with background(watcher.wait("a", RUNNING, fail)) as waiting:
        with pytest.raises(ExecutorConnectionError):
            await asyncio.wait_for(asyncio.shield(waiting), 10)
    assert not watcher.is_watching
