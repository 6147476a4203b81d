"""One routing pass: reads pending jobs by class, lets `routing` decide, and writes the decisions."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from django.db.models import Q
from django.db.models.functions import Now

from container_manager import clock, configuration
from container_manager.database import connection
from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import JobStatus
from container_manager.models import ContainerJob, ExecutorHost, class_key
from container_manager.routing import router
from container_manager.routing.strategies import UNLIMITED
from container_manager.routing.types import Decision, Evaluation, JobClass, JobRequirements, Outcome
from container_manager.store import bulk, decisions, pending, reservations
from container_manager.store.assignment import assign, record
from container_manager.store.transaction import Fence, NewEvent, Transaction

MOST_PLACED = 10_000
"""Pending jobs that one transaction places; the next pass continues."""

CLAIMED_AT_ONCE = 20
"""Up to this many new jobs of one transaction are claimed in it; if there are more, the dispatcher claims in order."""

YOUNGEST = 1 << 62
"""The age of jobs that have no id yet; the age of others is their id."""

MOST_RECORDED, MOST_CELLS = 1000, 1_000_000
"""Evaluations that one transaction records, and how many hosts they may have together."""

KEEP_ALIVE_SECONDS = 1.0

UNSET_AT_FIRST = frozenset(
    {
        *("failure", "cancelled_by", "failed_hosts", "unfit_hosts", "exit_code", "not_before", "reserved_host_id"),
        *("launched_at", "started_at", "finished_at", "stopped_at", "cancel_requested_at"),
    }
)
"""Columns in which new jobs have the database's default: writing it for each would take time."""


class NamedJob(NamedTuple):
    """A job that a client asks to route."""

    pk: int
    status: str
    class_key: str
    attempt: int


@dataclass(slots=True)
class _PendingClass:
    """A class in this pass: its oldest saved job, if any, and its new jobs.

    `read`: how many saved jobs were read. `cut`: there may be more of them, for which this pass has no time.
    `is_known`: it is refused for the reasons that are stored already.
    """

    key: str
    requirements: JobRequirements
    head: ContainerJob | None = None
    new: list[int] = field(default_factory=list)
    read: int = 0
    cut: bool = False
    is_known: bool = False

    @property
    def age(self) -> int:
        return self.head.pk if self.head is not None else YOUNGEST - self.new[0]


class RoutingPass:
    """Decides on all pending jobs and on new ones together. Planning stops there; routing also calls `write`.

    Saved jobs have their ids as keys, new jobs the numbers from -1 downwards in their order. A new refusal is recorded
    for the oldest job of its class and for each of the `named` jobs. A `bounded` pass stops when it has done enough;
    the classes that come later are left to the next pass, undecided. Unless there are `saved` pending jobs, none is
    looked for. `ids`: some that this transaction has allocated.
    """

    def __init__(
        self,
        fleet: router.Fleet,
        new_jobs: Sequence[ContainerJob] = (),
        named: Iterable[NamedJob] = (),
        *,
        saved: bool = True,
        bounded: bool = True,
        ids: bulk.Ids | None = None,
    ) -> None:
        self._now = clock.now()
        self._new_jobs = new_jobs
        self._left = MOST_PLACED if bounded else UNLIMITED
        self._records_left = min(MOST_RECORDED, MOST_CELLS // (len(fleet.hosts) or 1) + 1) if bounded else UNLIMITED
        self._named: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for entry in named:
            self._named[entry.class_key][entry.pk] = entry.attempt
        self._attempts: dict[int, int] = {}
        self._ids = ids
        self.any_pending = saved
        self._classes = self._read_classes(saved)
        self.more = False
        """Whether classes were left to the next pass."""
        self.outcomes: list[Outcome] = []
        self._fleet = fleet
        self._decide()

    def _read_classes(self, saved: bool) -> dict[str, _PendingClass]:
        # By the keys in the rows, which an earlier version may have computed differently.
        classes = {
            head.class_key: _PendingClass(head.class_key, head.requirements(), head)
            for head in (pending.heads(self._now) if saved else ())
        }
        for index, job in enumerate(self._new_jobs):
            needs = job.requirements()
            job.class_key = class_key(needs)
            if job.class_key not in classes:
                classes[job.class_key] = _PendingClass(job.class_key, needs)
            classes[job.class_key].new.append(-1 - index)
        return classes

    def _decide(self) -> None:
        classes = [JobClass(c.requirements, c.age, partial(self._members, c), c.key) for c in self._classes.values()]
        alive = time.monotonic()
        for outcome in router.decide_classes(self._fleet, classes):
            self.outcomes.append(outcome)
            entry = self._classes[outcome.job_class.key]
            if outcome.refused is not None:
                entry.is_known = pending.is_known(entry.head, outcome.refused)
            if outcome.placed or (outcome.refused and (entry.new or not entry.is_known)):
                self._records_left -= 1
            if entry.cut or not self._left or not self._records_left:
                self.more = True
                break
            if time.monotonic() > alive + KEEP_ALIVE_SECONDS:
                # PostgreSQL ends connections that are idle inside a transaction.
                alive = time.monotonic()
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")

    def _members(self, entry: _PendingClass, count: int) -> Sequence[int]:
        if entry.head is None:
            return entry.new[:count]
        ready = Q(not_before=None) | Q(not_before__lte=self._now)
        rows = ContainerJob.objects.filter(pending.PENDING, ready, class_key=entry.key)
        self._left += entry.read
        most = min(count, self._left)
        found = dict(rows.order_by("pk").values_list("pk", "attempt")[:most])
        self._attempts |= found
        entry.read = len(found)
        self._left -= entry.read
        entry.cut = entry.read == most < count
        # New jobs must not overtake saved ones that were not read.
        return list(found) if entry.cut else [*found, *entry.new[: count - len(found)]]

    def decisions(self) -> dict[int, Decision]:
        """The decisions on all placed jobs and on all new jobs, by key."""
        found: dict[int, Decision] = {}
        for outcome in self.outcomes:
            found.update((decision.key, decision) for decision in outcome.placed)
            found.update((decision.key, decision) for decision in self._refused_new_jobs(outcome))
        return found

    def _refused_new_jobs(self, outcome: Outcome) -> list[Decision]:
        if outcome.refused is None:
            return []
        placed = {decision.key for decision in outcome.placed if decision.key < 0}
        new = self._classes[outcome.job_class.key].new
        return router.refuse([key for key in new if key not in placed], outcome.refused)

    # -------------------------------------------------------------- writing

    def write(self, tx: Transaction) -> None:
        """Occupy the chosen hosts, and record decisions and events. The caller's transaction holds the routing lock."""
        decided = [
            decision for outcome in self.outcomes for decision in (*outcome.placed, *self._refused_new_jobs(outcome))
        ]
        for decision in decided:
            if decision.key < 0:
                _apply(self._new_jobs[-1 - decision.key], decision, self._now)
        assign(tx, [decision for decision in decided if decision.key > 0])
        decided += self._update_refusals()
        ids = decisions.new_ids(decided, len(self._new_jobs), self._fleet, self._ids)
        for job, pk in zip(self._new_jobs, ids.jobs, strict=True):
            job.pk = pk
            message = f"{job.name or 'A job'} with image {job.image}."
            executor_type, attempt, by = str(job.executor_type), job.attempt, job.submitted_by
            # Not by `tx.event`, because there may be thousands.
            event = NewEvent(EventKind.JOB_SUBMITTED, message, pk, None, "", executor_type, None, attempt, by)
            tx.events.append(event)
        tx.rows.append(bulk.rows_of(ContainerJob, self._claim_new_jobs(tx), UNSET_AT_FIRST))
        record(tx, [(*self._id_and_attempt(decision.key), decision) for decision in decided], ids)

    def _claim_new_jobs(self, tx: Transaction) -> list[ContainerJob]:
        """The new jobs as they are saved: if they are few, those that this process can launch are claimed by it."""
        worker, placed = tx.worker, {job.host_id for job in self._new_jobs if job.host_id}
        if worker is None or not placed or len(self._new_jobs) > CLAIMED_AT_ONCE:
            return list(self._new_jobs)
        # With the database's clock, by which leases expire.
        reachable = ExecutorHost.objects.filter(node__in=["", worker.node]).annotate(now=Now()).in_bulk(placed)
        saved = []
        for job in self._new_jobs:
            if job.host_id in reachable:
                host = reachable[job.host_id]
                lease = {"lease_owner": worker.owner, "lease_epoch": 1, "lease_expires_at": host.now + worker.lease}
                claimed = ContainerJob.of({**vars(job), "status": JobStatus.LAUNCHING, **lease})
                claimed.host = host
                tx.claimed.append((claimed, Fence(claimed.pk, 1)))
                saved.append(claimed)
            else:
                saved.append(job)
        return saved

    def _id_and_attempt(self, key: int) -> tuple[int, int]:
        if key > 0:
            return key, self._attempts[key]
        job = self._new_jobs[-1 - key]
        return job.pk, job.attempt

    def _update_refusals(self) -> list[Decision]:
        """Store why each class waits, unless it is stored already; returns the refusals to record."""
        changed: list[tuple[str, Evaluation]] = []
        resolved: list[str] = []
        news: list[Decision] = []
        for outcome in self.outcomes:
            entry = self._classes[outcome.job_class.key]
            head: Any = entry.head
            if outcome.refused is None:
                resolved += [entry.key] if head is not None and head.refused_verdict and not entry.cut else []
            elif not entry.is_known:
                changed.append((entry.key, outcome.refused))
                recorded = self._named[entry.key] | ({head.pk: head.attempt} if head is not None else {})
                self._attempts |= recorded
                keys = sorted(recorded.keys() - {decision.key for decision in outcome.placed})
                news += router.refuse(keys, outcome.refused)
        pending.store_refusals(changed)
        pending.delete_refusals(resolved)
        return news

    def update_reservation(self, tx: Transaction) -> bool:
        """Reserve room for the job that has waited longest, and end a reservation that no longer helps.

        Returns whether reserved room has become free. A pass that left classes undecided changes nothing.
        """
        refused = {outcome.job_class.key: outcome for outcome in self.outcomes if outcome.refused is not None}
        holder = reservations.holder()
        if self.more or (holder is not None and holder.class_key not in refused):
            return False
        if holder is not None:
            evaluation = refused[holder.class_key].refused
            assert evaluation is not None  # noqa: S101 - it is among the refused
            if router.host_to_reserve(evaluation, {holder.reserved_host_id or 0}) is not None:
                return False
            reservations.end_for_job(tx, holder.pk)
        longest = self._now - timedelta(seconds=configuration.current().reserve_after_seconds)
        starving = [
            (head.submitted_at, head.pk, head, outcome.refused)
            for key, outcome in refused.items()
            if not outcome.placed and (head := self._classes[key].head) is not None and head.submitted_at <= longest
        ]
        for _, _, head, evaluation in sorted(starving, key=lambda entry: entry[:2]):
            if evaluation is not None and (host := router.host_to_reserve(evaluation)) is not None:
                reservations.reserve(tx, head, host, evaluation)
                break
        return holder is not None


def _apply(job: ContainerJob, decision: Decision, now: datetime) -> None:
    """Put a decision into a job that is about to be inserted."""
    if decision.host is not None:
        job.status = JobStatus.ROUTED
        job.host_id = decision.host.id
        job.executor_type = decision.host.executor_type
        job.routing_reason = decision.reason
        job.routed_at = now
        job.queue_deadline = None
