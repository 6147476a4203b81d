"""Waits for many executions at once: hints report ends immediately, a regular look at all finds what they miss."""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, suppress

from container_manager.aio import cancel_and_wait, start_detached
from container_manager.executors.base import ExecutionState, ExecutionStatus
from container_manager.executors.exceptions import ExecutorClosedError, ExecutorError

logger = logging.getLogger(__name__)

FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0
"""Seconds between two tries to connect to the hints again."""

JITTER = 0.2
LONGEST_PAUSE = 60.0
"""Seconds between two polls of a host that does not answer."""


class Watcher:
    """Wakes the waiters of an execution when its state has changed, or may have.

    `alive` returns the states of executions that have not ended. It gets the ids that are waited for, and may leave out
    others. `hints` yields the ids of executions that have just ended, for as long as a connection lasts; its first
    value is "", once the connection is made. Both are used only while there are waiters.
    """

    def __init__(
        self,
        alive: Callable[[Collection[str]], Awaitable[Mapping[str, ExecutionState]]],
        interval: float,
        hints: Callable[[], AsyncGenerator[str, None]] | None = None,
    ) -> None:
        self._hints = hints
        self._alive = alive
        self._interval = interval
        self._waiters: defaultdict[str, dict[asyncio.Event, ExecutionState]] = defaultdict(dict)
        self._look_now = asyncio.Event()
        self._tasks: list[asyncio.Task[object]] = []
        self._closed = False

    async def wait(
        self, execution_id: str, seen: ExecutionState, status: Callable[[], Awaitable[ExecutionStatus | None]]
    ) -> ExecutionStatus | None:
        """The first status beyond `seen`; None when the host does not know the execution.

        Raises:
            ExecutorClosedError: the watcher was closed.
            ExecutorError: `status` raised it.
        """
        woken = asyncio.Event()
        # Registered before the first look, so that no change after it is missed.
        self._waiters[execution_id][woken] = seen
        if not self._tasks:
            loops = [self._look(), *([self._listen()] if self._hints else [])]
            self._tasks = [start_detached(loop, "watching executions") for loop in loops]
        try:
            while True:
                found = await status()
                if found is None or found.state not in {ExecutionState.CREATED, ExecutionState.STARTING, seen}:
                    return found
                await woken.wait()
                woken.clear()
                if self._closed:
                    raise ExecutorClosedError("The host's settings were changed.")
        finally:
            del self._waiters[execution_id][woken]
            if not self._waiters[execution_id]:
                del self._waiters[execution_id]
            if not self._waiters:
                await self._stop_tasks()

    async def aclose(self) -> None:
        """Stop, and wake all waiters with ExecutorClosedError."""
        self._closed = True
        for execution_id in list(self._waiters):
            self._wake(execution_id)
        await self._stop_tasks()

    @property
    def is_watching(self) -> bool:
        """Whether anything waits."""
        return bool(self._tasks)

    async def _stop_tasks(self) -> None:
        tasks, self._tasks = self._tasks, []
        await cancel_and_wait(*tasks)

    def _wake(self, execution_id: str) -> None:
        for woken in self._waiters.get(execution_id, ()):
            woken.set()

    async def _listen(self) -> None:
        assert self._hints is not None  # noqa: S101 - this task runs only with hints
        pause = FIRST_PAUSE
        while True:
            try:
                async with aclosing(self._hints()) as hints:
                    async for execution_id in hints:
                        if execution_id:
                            self._wake(execution_id)
                        else:
                            # Executions may have ended while there was no connection.
                            self._look_now.set()
                            pause = FIRST_PAUSE
            except ExecutorError as error:
                logger.info("the stream of ended executions was lost: %s", error)
            except Exception:
                # The next poll finds what an unreadable hint would have reported.
                logger.exception("the stream of ended executions was lost")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)

    async def _look(self) -> None:
        pause = self._interval
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(1 - JITTER, 1 + JITTER)):  # noqa: S311
                    await self._look_now.wait()
            self._look_now.clear()
            waited_for = {execution_id: set(seen.values()) for execution_id, seen in self._waiters.items()}
            try:
                alive = await self._alive(waited_for)
            except Exception as error:
                # The states are unknown until the next look.
                if isinstance(error, ExecutorError):
                    logger.info("looking for ended executions failed: %s", error)
                else:
                    logger.exception("looking for ended executions failed")
                pause = min(pause * 2, max(self._interval, LONGEST_PAUSE))
                continue
            pause = self._interval
            for execution_id, seen in waited_for.items():
                if seen != {alive.get(execution_id)}:
                    self._wake(execution_id)
