"""Many executions waited for at once: hints tell at once, a look at all of them now and then tells for certain."""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing, suppress

from container_manager.executors.exceptions import ExecutorError

logger = logging.getLogger(__name__)

FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0
"""Seconds between two tries to hear hints again."""

JITTER = 0.2


class Watcher:
    """Wakes those who wait for an execution when it has ended, or may have.

    `hints` gives the ids of executions that have just ended, for as long as a connection lasts; its first value is
    "", once it listens. `running` gives those that have not ended. Both are used only while somebody waits.
    """

    def __init__(
        self,
        hints: Callable[[], AsyncGenerator[str, None]],
        running: Callable[[], Awaitable[Collection[str]]],
        interval: float,
    ) -> None:
        self._hints = hints
        self._running = running
        self._interval = interval
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._look = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def attach(self, execution_id: str) -> asyncio.Event:
        """An event that is set when the execution may have ended."""
        woken = asyncio.Event()
        self._waiters[execution_id].add(woken)
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._look_around())]
        return woken

    async def detach(self, execution_id: str, woken: asyncio.Event) -> None:
        """Nobody waits for that event any more."""
        self._waiters[execution_id].discard(woken)
        if not self._waiters[execution_id]:
            del self._waiters[execution_id]
        if not self._waiters:
            await self.aclose()

    async def aclose(self) -> None:
        """Stop, and wake everybody."""
        for execution_id in list(self._waiters):
            self._wake(execution_id)
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _wake(self, execution_id: str) -> None:
        for woken in self._waiters.get(execution_id, ()):
            woken.set()

    async def _listen(self) -> None:
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
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval * random.uniform(1 - JITTER, 1 + JITTER)):  # noqa: S311
                    await self._look.wait()
            self._look.clear()
            waited_for = list(self._waiters)
            try:
                for execution_id in set(waited_for) - set(await self._running()):
                    self._wake(execution_id)
            except ExecutorError as error:
                # It does not answer: unknown, until the next look.
                logger.info("looking for ends: %s", error)
            except Exception:
                logger.exception("looking for ends")
