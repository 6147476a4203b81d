"""Small additions to asyncio: bounded waits, and tasks that never outlive their owner or fail in silence."""

import asyncio
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
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


@asynccontextmanager
async def background(work: Coroutine[Any, Any, T], name: str | None = None) -> AsyncIterator[asyncio.Task[T]]:
    """Run a coroutine beside the block; it is cancelled and awaited when the block ends."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        await cancel_and_wait(task)


def start_detached(work: Coroutine[Any, Any, object], name: str) -> asyncio.Task[object]:
    """Start a task that nothing awaits; its exception is logged under `name`. The caller keeps the reference.

    It does not inherit the context, because it outlives the request or the job that happens to start it.
    """
    task = asyncio.create_task(work, name=name, context=Context())
    task.add_done_callback(_log_exception)
    return task


def _log_exception(task: "asyncio.Task[object]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("background task %r failed", task.get_name(), exc_info=error)
