"""Leadership: of the processes that could look after a host, one does so at a time."""

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
"""The duty for hosts that every node can reach, and for work of which the fleet needs only one."""


class Leader:
    """Campaigns for the fleet and for its own node. When it dies, another process takes over once the lease expires."""

    name = "leader"

    def __init__(self, writer: Writer, node: str, lease_seconds: float) -> None:
        self._writer = writer
        self._candidate = Candidate(f"{node}/{secrets.token_hex(4)}", (FLEET, node), timedelta(seconds=lease_seconds))
        self._lease = lease_seconds
        self._nodes: set[str] = set()
        self._until = 0.0
        self._on_election: list[asyncio.Event] = []
        self.patience = lease_seconds

    @property
    def nodes(self) -> set[str]:
        """The nodes whose hosts this process probes and sweeps now; "" stands for hosts that belong to no node."""
        return self._nodes if time.monotonic() < self._until else set()

    def on_election(self, wake: asyncio.Event) -> None:
        """Set `wake` whenever this process has become the leader of another node."""
        self._on_election.append(wake)

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            # Counted from before the request, so that two processes never lead at the same time.
            asked_at, before = time.monotonic(), self.nodes
            self._nodes = await self._writer.write(leadership.campaign, self._candidate)
            self._until = asked_at + self._lease
            if self._nodes - before:
                for wake in self._on_election:
                    wake.set()
            await asyncio.sleep(self._lease / RENEWALS_PER_LEASE)

    async def stop(self) -> None:
        """Resign, so that another process can take over at once."""
        self._until = 0.0
        await self._writer.write(leadership.resign, self._candidate.owner)
