"""Drops what need not be kept any longer."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from container_manager.store import decisions as decision_store
from container_manager.store.waiting import forget_refusals
from container_manager.store.writer import Writer

PAUSE_SECONDS = 600.0


class Housekeeping:
    """A slow turn; what is much goes in portions, so that nobody waits long behind it."""

    name = "housekeeping"
    patience = PAUSE_SECONDS * 2

    def __init__(self, writer: Writer, keep_evaluations: timedelta) -> None:
        self._writer = writer
        self._keep_evaluations = keep_evaluations

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            await self._writer.write(forget_refusals, None)
            while await self._writer.write(decision_store.forget, self._keep_evaluations):
                beat()
            await asyncio.sleep(PAUSE_SECONDS)

    async def stop(self) -> None:
        """Nothing is held."""
