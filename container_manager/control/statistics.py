"""Counts what happens to jobs, in one process of the fleet."""

import asyncio
from collections.abc import Callable, Sequence

from container_manager.aio import wait_for
from container_manager.control.leader import FLEET, Leader
from container_manager.store import statistics, threads
from container_manager.store.writer import Writer

PAUSE_SECONDS, IDLE_SECONDS = 2.0, 60.0


class Statistics:
    """A loop that follows the event log, at most once every `PAUSE_SECONDS`."""

    name = "statistics"
    patience = IDLE_SECONDS * 3

    def __init__(self, writer: Writer, leader: Leader) -> None:
        self._writer, self._leader = writer, leader
        self._news = asyncio.Event()
        leader.on_election(self._news)

    def on_events(self, events: Sequence[object]) -> None:
        """There is something to count."""
        if events:
            self._news.set()

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            while FLEET in self._leader.nodes and (found := await threads.read(statistics.collect)) is not None:
                beat()
                await self._writer.write(statistics.store, found)
                if not found.more:
                    break
            await wait_for(self._news, IDLE_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)

    async def stop(self) -> None:
        """Nothing to clean up."""
