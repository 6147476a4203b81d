"""Deletes what is older than its retention time, and refusals that no job refers to."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

from container_manager.aio import wait_for
from container_manager.control.leader import FLEET, Leader
from container_manager.environment import Environment
from container_manager.store import audit, decisions, events, fleet, host_usage, retention, statistics, threads
from container_manager.store.pending import delete_unused_refusals
from container_manager.store.transaction import Unit
from container_manager.store.writer import Writer

PAUSE_SECONDS = 600.0


class Housekeeping:
    """A slow loop. It deletes in portions, so that other writes never wait long behind it."""

    name = "housekeeping"
    patience = PAUSE_SECONDS * 2

    def __init__(self, writer: Writer, leader: Leader, kept: Environment) -> None:
        self._writer = writer
        self._leader = leader
        self._elected = asyncio.Event()
        leader.on_election(self._elected)
        self._deletions: Sequence[tuple[Unit, timedelta]] = (
            (decisions.delete_old, timedelta(days=kept.evaluation_days)),
            (events.delete_old, timedelta(days=kept.event_days)),
            (audit.delete_old, timedelta(days=kept.audit_days)),
            (retention.delete_fleet_changes, fleet.KEPT),
            (statistics.delete_old, timedelta()),
            (host_usage.delete_old, timedelta()),
        )
        self._of_jobs: Sequence[tuple[Callable[[timedelta], list[int]], Unit, timedelta]] = (
            (retention.ended_jobs, retention.delete_jobs, timedelta(days=kept.job_days)),
            (retention.jobs_with_output, retention.delete_outputs, timedelta(days=kept.output_days)),
        )

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            if FLEET in self._leader.nodes:
                await self._writer.write(delete_unused_refusals, None)
                for delete, retention in self._deletions:
                    while FLEET in self._leader.nodes and await self._writer.write(delete, retention):
                        beat()
                for find, delete, age in self._of_jobs:
                    while FLEET in self._leader.nodes and (found := await threads.read(find, age)):
                        await self._writer.write(delete, found)
                        beat()
            await wait_for(self._elected, PAUSE_SECONDS)

    async def stop(self) -> None:
        """Nothing to clean up."""
