"""Records the usage of hosts once a minute, and when a drained one is empty; in one process of the fleet."""

import asyncio
import time
from collections.abc import Callable, Sequence

from container_manager.aio import wait_for
from container_manager.control.leader import FLEET, Leader
from container_manager.domain.kinds import EventKind
from container_manager.store import host_usage, threads
from container_manager.store.events import AnyEvent
from container_manager.store.writer import Writer

SAMPLE_SECONDS, PAUSE_SECONDS = 60.0, 1.0

EMPTYING = frozenset({EventKind.JOB_FINISHED, EventKind.JOB_CANCELLED, EventKind.JOB_RETRIED, EventKind.HOST_DRAINED})
"""Events after which a drained host may be empty."""


class HostUsage:
    """A loop that samples all hosts, and looks at drained ones after events, at most once every `PAUSE_SECONDS`."""

    name = "host usage"
    patience = SAMPLE_SECONDS * 3

    def __init__(self, writer: Writer, leader: Leader) -> None:
        self._writer, self._leader = writer, leader
        self._wake = asyncio.Event()
        leader.on_election(self._wake)

    def on_events(self, events: Sequence[AnyEvent]) -> None:
        """Notice events after which a host may be empty."""
        if any(event.kind in EMPTYING for event in events):
            self._wake.set()

    async def run(self, beat: Callable[[], None]) -> None:
        due = time.monotonic()
        while True:
            beat()
            pause = SAMPLE_SECONDS
            if FLEET in self._leader.nodes:
                if await threads.read(host_usage.must_record_empty):
                    await self._writer.write(host_usage.record_empty, None)
                if time.monotonic() >= due:
                    due = time.monotonic() + SAMPLE_SECONDS
                    for rows in await threads.read(host_usage.sample):
                        await self._writer.write(host_usage.store, rows)
                pause = max(due - time.monotonic(), 0)
            await asyncio.sleep(PAUSE_SECONDS)
            await wait_for(self._wake, pause)

    async def stop(self) -> None:
        """Nothing to clean up."""
