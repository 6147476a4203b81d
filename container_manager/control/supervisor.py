"""Starts the control loops, keeps them alive, and knows whether they tick."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)

RESTART_AFTER = 1.0


class Loop(Protocol):
    """A control loop. `beat` is to be called at every turn; `patience` is how many seconds may lie between two."""

    name: str
    patience: float

    async def run(self, beat: Callable[[], None]) -> None: ...

    async def stop(self) -> None: ...


class Supervisor:
    """Runs loops side by side; one that fails is logged and run again, and the others never notice."""

    def __init__(self, loops: list[Loop]) -> None:
        self._loops = loops
        self._beats: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for loop in self._loops:
            self._beats[loop.name] = time.monotonic()
            self._tasks.append(asyncio.create_task(self._keep_alive(loop), name=loop.name))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        stopped = await asyncio.gather(*(loop.stop() for loop in self._loops), return_exceptions=True)
        for loop, error in zip(self._loops, stopped, strict=True):
            if error is not None:
                # The database may be away; leases run out by themselves.
                logger.warning("stopping the %s loop: %r", loop.name, error)

    def stalled(self) -> list[str]:
        """The names of the loops that have not ticked lately."""
        now = time.monotonic()
        return [loop.name for loop in self._loops if now - self._beats.get(loop.name, now) > loop.patience]

    async def _keep_alive(self, loop: Loop) -> None:
        def beat() -> None:
            self._beats[loop.name] = time.monotonic()

        while True:
            try:
                await loop.run(beat)
            except Exception:
                # A loop that stays down stops the fleet; one that is run again usually gets on.
                logger.exception("control loop %s", loop.name)
            await asyncio.sleep(RESTART_AFTER)
