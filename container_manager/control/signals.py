"""Sends Django signals for jobs that have ended, at least once each, from the event log."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections

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
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 5, 0.5, 4.0


class Signals:
    """A loop of which one works in the fleet, among the processes that have receivers."""

    name = "signals"
    patience = 120.0

    def __init__(self, writer: Writer, lease_seconds: float) -> None:
        self._writer = writer
        self._lease = max(lease_seconds, IDLE_SECONDS * 3)
        self._candidate = Candidate(secrets.token_hex(8), (DUTY,), timedelta(seconds=self._lease))
        self._until = 0.0
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
                    if not await self._leads():
                        break
                    await self._send(job, event, beat)
                    await self._writer.write(signals.sent, event.id)
                else:
                    await self._writer.write(signals.sent, found.through)
            await wait_for(self._news, IDLE_SECONDS)

    async def _leads(self) -> bool:
        """Whether the duty is this process's for long enough; it is renewed in the second half of its lease."""
        if time.monotonic() < self._until - self._lease / 2:
            return True
        asked_at = time.monotonic()
        held: set[str] = await self._writer.write(leadership.campaign, self._candidate)
        self._until = asked_at + self._lease if DUTY in held else 0.0
        return DUTY in held

    async def _send(self, job: ContainerJob, event: Event, beat: Callable[[], None]) -> None:
        """Call all receivers; those that raise an error again, a few times, and while the database is away."""
        await sync_to_async(close_old_connections)()
        answers = await job_ended.asend_robust(ContainerJob, job=job, cursor=event.id)
        failed = [(receiver, answer) for receiver, answer in answers if isinstance(answer, Exception)]
        tries, pause = 1, FIRST_PAUSE
        while failed:
            for receiver, error in failed:
                message = "the receiver %r of job_ended failed for job %s (try %d)"
                logger.error(message, receiver, job.pk, tries, exc_info=error)
            is_away = any(isinstance(error, threads.DATABASE_AWAY) for _, error in failed)
            if tries >= TRIES and not is_away:
                return
            await asyncio.sleep(pause)
            beat()
            tries, pause = tries + 1, min(pause * 2, LONGEST_PAUSE)
            await sync_to_async(close_old_connections)()
            again = [(receiver, await _called(receiver, job, event)) for receiver, _ in failed]
            failed = [(receiver, error) for receiver, error in again if error is not None]

    async def stop(self) -> None:
        """Resign, so that another process can take over at once."""
        await self._writer.write(leadership.resign, self._candidate.owner)


async def _called(receiver: Any, job: ContainerJob, event: Event) -> Exception | None:
    """Call one receiver, as Django does; returns its error."""
    call = receiver if iscoroutinefunction(receiver) else sync_to_async(receiver)
    try:
        await call(signal=job_ended, sender=ContainerJob, job=job, cursor=event.id)
    except Exception as error:  # noqa: BLE001 - any error of the project's code
        return error
    return None
