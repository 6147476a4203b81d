"""Small additions to asyncio: bounded waits, slots by priority, and tasks that never outlive their owner in silence."""

import asyncio
import heapq
import itertools
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


async def wait_for(event: asyncio.Event, timeout: float, *, clear: bool = True) -> bool:
    """Wait until the event is set, at most `timeout` seconds, then clear it. Returns whether it was set."""
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return False
    if clear:
        event.clear()
    return True


async def cancel_and_wait(*tasks: "asyncio.Future[Any] | None") -> None:
    """Cancel the tasks and wait until each has ended. Their results and exceptions are dropped; None is skipped."""
    running = []
    for task in tasks:
        if task is not None and task.cancel():
            running.append(task)
        elif task is not None and not task.cancelled():
            task.exception()
    if running:
        await asyncio.gather(*running, return_exceptions=True)


@asynccontextmanager
async def background(work: Coroutine[Any, Any, T], name: str | None = None) -> AsyncIterator[asyncio.Task[T]]:
    """Run a coroutine beside the block; it is cancelled and awaited when the block ends."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        await cancel_and_wait(task)


def start_detached(
    work: Coroutine[Any, Any, object], name: str, among: set[asyncio.Task[object]] | None = None
) -> asyncio.Task[object]:
    """Start a task that nothing awaits; its exception is logged under `name`.

    The caller keeps the reference, or gives a set that has the task until it is done.

    It does not inherit the context, because it outlives the request or the job that happens to start it.
    """
    task = asyncio.create_task(work, name=name, context=Context())
    task.add_done_callback(_log_exception)
    if among is not None:
        among.add(task)
        task.add_done_callback(among.discard)
    return task


def _log_exception(task: "asyncio.Task[object]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("background task %r failed", task.get_name(), exc_info=error)


class Slots:
    """A semaphore that lets the waiter with the highest priority in first, and equal ones in the order they came."""

    def __init__(self, count: int) -> None:
        self._free = self.count = count
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    def locked(self) -> bool:
        """Whether a turn would have to wait."""
        return not self._free

    def turn(self, priority: int = 0) -> "asyncio.Future[None]":
        """A future that is done once its holder has a slot. It must be given back, also when it is not done."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._free:
            self._free -= 1
            turn.set_result(None)
        else:
            heapq.heappush(self._waiting, (-priority, next(self._order), turn))
        return turn

    def give_back(self, turn: "asyncio.Future[None]") -> None:
        """End a turn or the wait for it, once, and give its slot to the next waiter. Nothing can interrupt it."""
        if turn.cancel() or turn.cancelled():
            return
        while self._waiting:
            following = heapq.heappop(self._waiting)[2]
            if not following.done():
                following.set_result(None)
                return
        self._free += 1
