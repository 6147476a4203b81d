"""Starts control loops, restarts those that fail, and knows which have stopped making progress."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from container_manager.aio import cancel_and_wait

logger = logging.getLogger(__name__)

RESTART_AFTER = 1.0


class Loop(Protocol):
    """A control loop.

    `run` calls `beat` in every turn; `patience` is the longest time in seconds between two calls of a healthy loop.
    `stop` is called once, after `run` was cancelled.
    """

    name: str
    patience: float

    async def run(self, beat: Callable[[], None]) -> None: ...

    async def stop(self) -> None: ...


class Supervisor:
    """Runs loops side by side. A loop that fails is logged and run again; the others are not affected."""

    def __init__(self, loops: Sequence[Loop]) -> None:
        self.loops = loops
        self._beats: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False

    async def start(self) -> None:
        for loop in self.loops:
            self._beats[loop.name] = time.monotonic()
            self._tasks.append(asyncio.create_task(self._keep_running(loop), name=loop.name))

    async def stop(self) -> None:
        """Cancel all loops, then let each of them clean up. Does nothing if they were not started."""
        if not self._tasks:
            return
        self._is_stopping = True
        await cancel_and_wait(*self._tasks)
        stopped = await asyncio.gather(*(loop.stop() for loop in self.loops), return_exceptions=True)
        for loop, error in zip(self.loops, stopped, strict=True):
            if error is not None:
                # The database may be down; leases that could not be given up expire.
                logger.warning("the %s loop could not be stopped cleanly: %r", loop.name, error)

    def stalled(self) -> list[str]:
        """The names of the loops that have not made progress within their patience."""
        now = time.monotonic()
        return [loop.name for loop in self.loops if now - self._beats.get(loop.name, now) > loop.patience]

    async def _keep_running(self, loop: Loop) -> None:
        def beat() -> None:
            self._beats[loop.name] = time.monotonic()

        # A loop may raise another error while it is cancelled, and must not be run again then.
        while not self._is_stopping:
            try:
                await loop.run(beat)
            except Exception:
                logger.exception("the %s loop failed and is run again", loop.name)
            await asyncio.sleep(RESTART_AFTER)
