"""Proves again and again that the fleet views of this process equal the rows."""

import asyncio
from collections.abc import Callable

from container_manager.store import threads
from container_manager.store.fleet import deciding_view, reading_view

PAUSE_SECONDS = 60.0


class FleetCheck:
    """A slow loop. A view that differs is read again."""

    name = "fleet check"
    patience = PAUSE_SECONDS * 3

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            for view in (deciding_view, reading_view):
                await threads.read(view.differences)
            await asyncio.sleep(PAUSE_SECONDS)

    async def stop(self) -> None:
        """Nothing to clean up."""
