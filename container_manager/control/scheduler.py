"""Routes pending jobs as soon as something happens that could help them."""

import asyncio
from collections.abc import Callable, Sequence

from container_manager import clock
from container_manager.aio import wait_for
from container_manager.control.leader import FLEET, Leader
from container_manager.domain.kinds import EventKind
from container_manager.store import pending, scheduling, threads
from container_manager.store.events import AnyEvent
from container_manager.store.scheduling import Passed
from container_manager.store.writer import Writer

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
        EventKind.HOST_RELEASED,
        # One usable host less may end the ejection of the last one of its type.
        EventKind.HOST_DRAINED,
        EventKind.HOST_DELETED,
        EventKind.HOST_LOST,
    }
)
"""Events after which a pending job may find a host."""

TIMED = frozenset({EventKind.JOB_REFUSED, EventKind.HOST_EJECTED, EventKind.HOST_COOLDOWN})
"""Events that set a time at which pending jobs may be helped: the end of a queue timeout, ejection or cooldown."""

DECIDED = frozenset({EventKind.JOB_ROUTED, EventKind.JOB_REFUSED})

PENDING = frozenset({EventKind.JOB_REFUSED, EventKind.JOB_RETRIED})
"""Events after which a job is pending."""

STAND_IN_SECONDS = 2.0
"""How long the other processes leave a queue pass to the leader of the fleet."""


class Scheduler:
    """Wakes on events, and when a back-off, queue timeout, ejection or cooldown ends, as long as any job is pending.

    It also routes every `REPAIR_SECONDS`, in case an event was missed. In a fleet of several processes the leader
    routes at once. The others route some seconds later, once for all events until then, because it may have died.
    """

    name = "scheduler"
    patience = REPAIR_SECONDS * 2

    def __init__(self, writer: Writer, leader: Leader) -> None:
        self._writer = writer
        self._leader = leader
        self._wake, self._elected = asyncio.Event(), asyncio.Event()
        leader.on_election(self._elected)
        self._is_due = False
        self._any_pending = True
        self._passed_at = clock.now()

    def on_events(self, events: Sequence[AnyEvent]) -> None:
        """Notice committed events, of this process or of others."""
        kinds = {event.kind for event in events}
        undecided = _has_undecided_job(events)
        if undecided or kinds & PENDING:
            self._any_pending = True
        if undecided or (self._any_pending and kinds & HELPFUL):
            self._is_due = True
        if self._is_due or (self._any_pending and kinds & TIMED):
            self._wake.set()

    async def run(self, beat: Callable[[], None]) -> None:
        # The first pass is made at once: this may be the only process.
        goes_on = True
        self._is_due = True
        while True:
            beat()
            if self._is_due:
                self._elected.clear()
                if not goes_on and FLEET not in self._leader.nodes:
                    await wait_for(self._elected, STAND_IN_SECONDS)
                # What this process has begun, it also continues.
                goes_on = await self._pass()
            if not self._is_due and not await wait_for(self._wake, await self._pause()):
                self._is_due = True

    async def stop(self) -> None:
        """Nothing to clean up."""

    async def _pass(self) -> bool:
        """Route what is pending; returns whether another pass could place more."""
        # Events that come during the pass may be about later commits.
        self._is_due, self._any_pending, self._passed_at = False, False, clock.now()
        done: Passed = await self._writer.write(scheduling.route_pending, None)
        self._is_due |= done.again
        self._any_pending |= done.found
        return done.again

    async def _pause(self) -> float:
        """Seconds until time alone may help a pending job, at most REPAIR_SECONDS."""
        if not self._any_pending:
            return REPAIR_SECONDS
        moment = await threads.read(pending.next_change, self._passed_at)
        if moment is None:
            return REPAIR_SECONDS
        return min(max((moment - clock.now()).total_seconds(), 0.01), REPAIR_SECONDS)


def _has_undecided_job(events: Sequence[AnyEvent]) -> bool:
    """Whether a job was submitted without a decision, because its transaction had decided enough others."""
    submitted = {event.job_id for event in events if event.kind == EventKind.JOB_SUBMITTED}
    return bool(submitted - {event.job_id for event in events if event.kind in DECIDED})
