"""Many executions waited for at once: hints tell at once, a look at all of them now and then tells for certain."""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, suppress

from container_manager.executors.base import ExecutionState, ExecutionStatus
from container_manager.executors.exceptions import ExecutorClosedError, ExecutorError

logger = logging.getLogger(__name__)

FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0
"""Seconds between two tries to hear hints again."""

JITTER = 0.2
LONGEST_PAUSE = 60.0
"""Seconds between two looks at an executor that does not answer."""


class Watcher:
    """Wakes those who wait for an execution when it has gone on, or may have.

    `alive` gives the states of those that have not ended; it is told which are waited for, and may leave out others.
    `hints` gives the ids of executions that have just ended, for as long as a connection lasts; its first value is
    "", once it listens. Both are used only while somebody waits.
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
        self._look = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    async def wait(
        self, execution_id: str, seen: ExecutionState, status: Callable[[], Awaitable[ExecutionStatus | None]]
    ) -> ExecutionStatus | None:
        """The first status that is further than `seen`, or None when there is none.

        Raises:
            ExecutorClosedError, and what `status` raises.
        """
        woken = asyncio.Event()
        # Before the first look: what goes on after it is told.
        self._waiters[execution_id][woken] = seen
        if not self._tasks:
            jobs = [self._look_around(), *([self._listen()] if self._hints else [])]
            self._tasks = [asyncio.create_task(job) for job in jobs]
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
                await self._rest()

    async def aclose(self) -> None:
        """Stop, and wake everybody."""
        self._closed = True
        for execution_id in list(self._waiters):
            self._wake(execution_id)
        await self._rest()

    async def _rest(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _wake(self, execution_id: str) -> None:
        for woken in self._waiters.get(execution_id, ()):
            woken.set()

    async def _listen(self) -> None:
        assert self._hints is not None  # noqa: S101 - else nobody listens
        pause = FIRST_PAUSE
        while True:
            try:
                async with aclosing(self._hints()) as hints:
                    async for execution_id in hints:
                        if execution_id:
                            self._wake(execution_id)
                        else:
                            # Whatever ended while nobody listened.
                            self._look.set()
                            pause = FIRST_PAUSE
            except ExecutorError as error:
                logger.info("waiting for ends: %s", error)
            except Exception:
                # What cannot be read is found by the look.
                logger.exception("waiting for ends")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)

    async def _look_around(self) -> None:
        pause = self._interval
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(1 - JITTER, 1 + JITTER)):  # noqa: S311
                    await self._look.wait()
            self._look.clear()
            waited_for = {execution_id: set(seen.values()) for execution_id, seen in self._waiters.items()}
            try:
                alive = await self._alive(waited_for)
            except Exception as error:
                # It does not answer: unknown, until the next look.
                if isinstance(error, ExecutorError):
                    logger.info("looking for ends: %s", error)
                else:
                    logger.exception("looking for ends")
                pause = min(pause * 2, max(self._interval, LONGEST_PAUSE))
                continue
            pause = self._interval
            for execution_id, seen in waited_for.items():
                if seen != {alive.get(execution_id)}:
                    self._wake(execution_id)
