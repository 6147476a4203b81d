"""Sends Django signals for jobs that have ended, at least once each, from the event log."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta

from container_manager.aio import wait_for
from container_manager.models import ContainerJob
from container_manager.signals import job_ended
from container_manager.store import leadership, signals, threads
from container_manager.store.events import AnyEvent, Event
from container_manager.store.leadership import Candidate
from container_manager.store.transaction import JOB_ENDS
from container_manager.store.writer import Writer

logger = logging.getLogger(__name__)

DUTY = ":signals"
IDLE_SECONDS = 5.0
TRIES, FIRST_PAUSE = 5, 0.5


class Signals:
    """A loop of which one works in the fleet, among the processes that have receivers."""

    name = "signals"
    patience = 120.0

    def __init__(self, writer: Writer, lease_seconds: float) -> None:
        self._writer = writer
        lease = timedelta(seconds=max(lease_seconds, IDLE_SECONDS * 3))
        self._candidate = Candidate(secrets.token_hex(8), (DUTY,), lease)
        self._news = asyncio.Event()

    def on_events(self, events: Sequence[AnyEvent]) -> None:
        """Notice jobs that have ended."""
        if any(event.kind in JOB_ENDS for event in events):
            self._news.set()

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            while job_ended.has_listeners(ContainerJob) and await self._leads():
                found = await threads.read(signals.unsent)
                if found is None:
                    break
                for job, event in found.ended:
                    await self._send(job, event)
                    beat()
                await self._writer.write(signals.sent, found.through)
            await wait_for(self._news, IDLE_SECONDS)

    async def _leads(self) -> bool:
        held: set[str] = await self._writer.write(leadership.campaign, self._candidate)
        return DUTY in held

    async def _send(self, job: ContainerJob, event: Event) -> None:
        """Call all receivers; again, a few times, while one of them raises an error."""
        pause = FIRST_PAUSE
        for tries in range(1, TRIES + 1):
            answers = await job_ended.asend_robust(ContainerJob, job=job, cursor=event.id)
            failed = [(receiver, answer) for receiver, answer in answers if isinstance(answer, Exception)]
            if not failed:
                return
            for receiver, error in failed:
                message = "the receiver %r of job_ended failed for job %s (try %d of %d)"
                logger.error(message, receiver, job.pk, tries, TRIES, exc_info=error)
            await asyncio.sleep(pause)
            pause *= 2

    async def stop(self) -> None:
        """Resign, so that another process can take over at once."""
        await self._writer.write(leadership.resign, self._candidate.owner)
