"""Deletes what is older than its retention time, and refusals that no job refers to."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

from container_manager.aio import wait_for
from container_manager.control.leader import FLEET, Leader
from container_manager.store import decisions, events
from container_manager.store.pending import delete_unused_refusals
from container_manager.store.transaction import Unit
from container_manager.store.writer import Writer

PAUSE_SECONDS = 600.0


class Housekeeping:
    """A slow loop. It deletes in portions, so that other writes never wait long behind it."""

    name = "housekeeping"
    patience = PAUSE_SECONDS * 2

    def __init__(
        self, writer: Writer, leader: Leader, evaluation_retention: timedelta, event_retention: timedelta
    ) -> None:
        self._writer = writer
        self._leader = leader
        self._elected = asyncio.Event()
        leader.on_election(self._elected)
        self._deletions: Sequence[tuple[Unit, timedelta]] = (
            (decisions.delete_old, evaluation_retention),
            (events.delete_old, event_retention),
        )

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            if FLEET in self._leader.nodes:
                await self._writer.write(delete_unused_refusals, None)
                for delete, retention in self._deletions:
                    while FLEET in self._leader.nodes and await self._writer.write(delete, retention):
                        beat()
            await wait_for(self._elected, PAUSE_SECONDS)

    async def stop(self) -> None:
        """Nothing to clean up."""
