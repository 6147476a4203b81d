"""Proves again and again that the fleet view of this process equals the rows."""

import asyncio
from collections.abc import Callable

from container_manager.store import threads
from container_manager.store.fleet import view

PAUSE_SECONDS = 60.0


class FleetCheck:
    """A slow loop. It also advances the view of a process that decides nothing, so that it need not be read again."""

    name = "fleet check"
    patience = PAUSE_SECONDS * 3

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            await threads.read(view.differences)
            await asyncio.sleep(PAUSE_SECONDS)

    async def stop(self) -> None:
        """Nothing to clean up."""
