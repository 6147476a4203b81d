"""Routes what waits, as soon as something has happened that could help it."""

import asyncio
from collections.abc import Callable, Sequence

from django.utils import timezone

from container_manager.models import EventKind
from container_manager.store import queue, routing, threads
from container_manager.store.events import Told
from container_manager.store.writer import Writer
from container_manager.waiting import wait_for

REPAIR_SECONDS = 30.0

HELPFUL = frozenset(
    {
        EventKind.JOB_FINISHED,
        EventKind.JOB_CANCELLED,
        EventKind.JOB_RETRIED,
        EventKind.HOST_CREATED,
        EventKind.HOST_UPDATED,
        EventKind.HOST_RESUMED,
        EventKind.HOST_HEALTH_CHANGED,
        # The last usable host of its kind is never ejected, so that even losing one may help.
        EventKind.HOST_DRAINED,
        EventKind.HOST_DELETED,
        EventKind.HOST_RELEASED,
    }
)
DECIDED = frozenset({EventKind.JOB_ROUTED, EventKind.JOB_REFUSED})


DATED = frozenset({EventKind.JOB_REFUSED, EventKind.HOST_EJECTED, EventKind.HOST_COOLDOWN})
"""What helps nobody now, and by time alone may: a queue timeout, an ejection or a cooldown ends."""


class QueueLoop:
    """Wakes on events, and when a back-off, timeout, ejection or cooldown ends; the slow turn only repairs."""

    name = "queue"
    patience = REPAIR_SECONDS * 2

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._wake = asyncio.Event()
        self._helped = False
        self._passed_at = timezone.now()

    def heard(self, events: Sequence[Told]) -> None:
        """Take notice of what was committed, here or in another process."""
        kinds = {event.kind for event in events}
        if kinds & HELPFUL or _left_over(events):
            self._helped = True
        if self._helped or kinds & DATED:
            self._wake.set()

    async def run(self, beat: Callable[[], None]) -> None:
        self._helped = True
        while True:
            beat()
            if self._helped:
                self._helped, self._passed_at = False, timezone.now()
                self._helped = await self._writer.write(routing.route_waiting, None) or self._helped
            if not self._helped and not await wait_for(self._wake, await self._patience()):
                self._helped = True

    async def stop(self) -> None:
        """Nothing is held."""

    async def _patience(self) -> float:
        moment = await threads.read(queue.next_moment, self._passed_at)
        if moment is None:
            return REPAIR_SECONDS
        return min(max((moment - timezone.now()).total_seconds(), 0.01), REPAIR_SECONDS)


def _left_over(events: Sequence[Told]) -> bool:
    """Whether a job was submitted on which nothing was decided, because its transaction had enough to do."""
    submitted = {event.job_id for event in events if event.kind == EventKind.JOB_SUBMITTED}
    return bool(submitted - {event.job_id for event in events if event.kind in DECIDED})
