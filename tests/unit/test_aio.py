"""Tasks end with their owner, and none fails in silence."""

import asyncio
import logging
from contextvars import ContextVar

import pytest

from container_manager.aio import Slots, background, cancel_and_wait, start_detached, wait_for


async def test_waiting_for_an_event_is_bounded_and_clears_it() -> None:
    event = asyncio.Event()
    assert not await wait_for(event, 0)
    event.set()
    assert await wait_for(event, 10)
    assert not event.is_set()
    event.set()
    assert await wait_for(event, 10, clear=False)
    assert event.is_set()


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        # Cleaning up may take several turns of the event loop.
        await asyncio.sleep(0)
        ended.append("ended")


async def test_cancelling_waits_until_each_task_has_cleaned_up() -> None:
    ended: list[str] = []
    tasks = [asyncio.create_task(forever(ended)) for _ in range(3)]
    await asyncio.sleep(0)
    await cancel_and_wait(*tasks, None)
    assert ended == ["ended"] * 3
    assert all(task.cancelled() for task in tasks)


async def test_cancelling_drops_the_errors_of_tasks() -> None:
    async def fail() -> None:
        raise RuntimeError("a bug")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert isinstance(task.exception(), RuntimeError)


async def test_background_work_ends_with_its_block() -> None:
    ended: list[str] = []
    async with background(forever(ended)) as task:
        await asyncio.sleep(0)
        assert not task.done()
    assert ended == ["ended"]


async def test_background_work_ends_with_a_block_that_fails() -> None:
    ended: list[str] = []

    async def block() -> None:
        async with background(forever(ended)):
            await asyncio.sleep(0)
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await block()
    assert ended == ["ended"]


async def test_the_result_of_background_work_can_be_taken() -> None:
    async def work() -> int:
        return 7

    async with background(work()) as task:
        assert await task == 7


async def test_a_detached_task_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise RuntimeError("a bug")

    task = start_detached(fail(), "probe of host h")
    await asyncio.wait({task})
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.ERROR, "background task 'probe of host h' failed")
    assert "a bug" in caplog.text


async def test_a_detached_task_that_is_cancelled_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    task = start_detached(asyncio.Event().wait(), "waiting")
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert caplog.records == []


async def test_a_detached_task_does_not_inherit_the_context_of_a_request() -> None:
    request: ContextVar[str] = ContextVar("request", default="none")
    request.set("mine")

    async def look() -> str:
        return request.get()

    assert await start_detached(look(), "look") == "none"


async def test_slots_go_by_priority_then_age() -> None:
    slots = Slots(1)
    assert not slots.locked()
    held = slots.turn()
    assert held.done()
    assert slots.locked()
    turns = {name: slots.turn(priority) for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5))}
    for name in ("b", "d", "a", "c"):
        assert not turns[name].done()
        slots.give_back(held)
        assert [other for other, turn in turns.items() if turn.done()] == [name]
        held = turns.pop(name)
    slots.give_back(held)
    assert not slots.locked()


async def test_a_cancelled_wait_keeps_no_slot() -> None:
    slots = Slots(1)
    held, first, second = slots.turn(), slots.turn(9), slots.turn(0)
    slots.give_back(first)

    async def wait() -> None:
        turn = slots.turn(9)
        try:
            await turn
        finally:
            slots.give_back(turn)

    third = asyncio.create_task(wait())
    await asyncio.sleep(0)
    # The slot is its own already, but it is cancelled before it runs.
    slots.give_back(held)
    third.cancel()
    await cancel_and_wait(third)
    assert second.done()
    slots.give_back(second)
    assert not slots.locked()
