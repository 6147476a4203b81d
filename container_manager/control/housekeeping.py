"""Drops what need not be kept any longer."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

from container_manager.control.leader import FLEET, Leader
from container_manager.store import decisions as decision_store
from container_manager.store import events as event_store
from container_manager.store.transaction import Unit
from container_manager.store.waiting import forget_refusals
from container_manager.store.writer import Writer
from container_manager.waiting import wait_for

PAUSE_SECONDS = 600.0


class Housekeeping:
    """A slow turn; what is much goes in portions, so that nobody waits long behind it."""

    name = "housekeeping"
    patience = PAUSE_SECONDS * 2

    def __init__(self, writer: Writer, leader: Leader, evaluations: timedelta, events: timedelta) -> None:
        self._writer = writer
        self._leader = leader
        self._elected = asyncio.Event()
        leader.on_election(self._elected)
        self._dropping: Sequence[tuple[Unit, timedelta]] = (
            (decision_store.forget, evaluations),
            (event_store.forget, events),
        )

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            if FLEET in self._leader.nodes:
                await self._writer.write(forget_refusals, None)
                for drop, older in self._dropping:
                    while FLEET in self._leader.nodes and await self._writer.write(drop, older):
                        beat()
            await wait_for(self._elected, PAUSE_SECONDS)

    async def stop(self) -> None:
        """Nothing is held."""
