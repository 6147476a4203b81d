"""Of several workers, one looks after each host: probes it, sweeps it, tells when nobody does."""

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import timedelta

from container_manager.store import leadership
from container_manager.store.leadership import Candidate
from container_manager.store.writer import Writer

RENEWALS_PER_LEASE = 4
FLEET = ""
"""The duty that is for hosts which every node can reach, and for what there is only one of."""


class Leader:
    """Stands for the fleet and for its own node; a process that stops or stands still is followed by another."""

    name = "leader"

    def __init__(self, writer: Writer, node: str, lease_seconds: float) -> None:
        self._writer = writer
        self._candidate = Candidate(f"{node}/{secrets.token_hex(4)}", (FLEET, node), timedelta(seconds=lease_seconds))
        self._lease = lease_seconds
        self._nodes: set[str] = set()
        self._until = 0.0
        self._elected: list[asyncio.Event] = []
        self.patience = lease_seconds

    @property
    def nodes(self) -> set[str]:
        """The nodes whose hosts this process looks after now; "" is for those that belong to none."""
        return self._nodes if time.monotonic() < self._until else set()

    def on_election(self, wake: asyncio.Event) -> None:
        """Set `wake` whenever there is a node more."""
        self._elected.append(wake)

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            # Counted from before it is granted, so that no two believe that they lead.
            asked_at, before = time.monotonic(), self.nodes
            self._nodes = await self._writer.write(leadership.stand, self._candidate)
            self._until = asked_at + self._lease
            if self._nodes - before:
                for wake in self._elected:
                    wake.set()
            await asyncio.sleep(self._lease / RENEWALS_PER_LEASE)

    async def stop(self) -> None:
        self._until = 0.0
        await self._writer.write(leadership.resign, self._candidate.owner)
