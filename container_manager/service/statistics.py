"""Statistics of jobs: what happened in a range of time, and what is going on."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from datetime import datetime

from container_manager.process import Process
from container_manager.store import statistics, threads
from container_manager.store.statistics import Dimension, Figures, Series


class Statistics:
    """The use cases about statistics."""

    def __init__(self, process: Process) -> None:
        self._events = process.events

    async def series(self, since: datetime, until: datetime, most: int) -> Series:
        """What happened between two times, in at most this many steps."""
        return await threads.read(statistics.series, since, until, most)

    async def groups(
        self, since: datetime, until: datetime, dimension: Dimension, label: str, most: int
    ) -> list[tuple[str, Figures]]:
        """The figures by the values of a dimension, of those with the most ended jobs; by those of one label."""
        return await threads.read(statistics.groups, since, until, dimension, label, most)

    async def unfinished(self) -> Mapping[str, int]:
        """How many jobs have not ended, by status."""
        return await threads.read(statistics.unfinished)

    def changes(self, seconds: float) -> AsyncGenerator[Mapping[str, int], None]:
        """What `unfinished` returns, at once and then whenever something was counted, until the service stops.

        `seconds`: the least time between two of them.
        """
        return self._events.until_drained(self._changes(seconds))

    async def _changes(self, seconds: float) -> AsyncGenerator[Mapping[str, int], None]:
        seen: object = None
        while True:
            if (now := await threads.read(statistics.position)) != seen:
                seen = now
                yield now[1]
            await asyncio.sleep(seconds)
