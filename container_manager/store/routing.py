"""The queue: reads what waits by classes, has it decided, and writes what was decided."""

import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from container_manager import metrics
from container_manager.errors import Conflict, NotFound, UserError
from container_manager.lifecycle import JobStatus
from container_manager.models import ContainerJob, EventKind, ExecutorHost, class_key
from container_manager.routing import router
from container_manager.routing.strategies import UNLIMITED
from container_manager.routing.types import (
    Decision,
    Evaluation,
    HostState,
    JobClass,
    JobRequirements,
    Outcome,
)
from container_manager.store import bulk, waiting
from container_manager.store import decisions as decision_store
from container_manager.store import hosts as host_store
from container_manager.store.transaction import Actor, Fact, Fence, Transaction, under_routing_lock

logger = logging.getLogger(__name__)

NO_JOB = "There is no such job."
MOST_AT_ONCE = 10_000
"""Waiting jobs that one transaction places; the next one goes on."""

CLAIMED_AT_ONCE = 20
"""New jobs of one transaction that are claimed in it; more are taken in their order, a moment later."""

YOUNGEST = 1 << 62
"""The age of jobs that have no id yet; ids are ages."""

MOST_RECORDED, MOST_CELLS = 1000, 1_000_000
"""Evaluations that one transaction records, and how many hosts they may have together."""

KEEP_ALIVE_SECONDS = 1.0


class _Named(NamedTuple):
    pk: int
    status: str
    class_key: str
    attempt: int


@dataclass(slots=True)
class _Waiting:
    """A class in this pass: its oldest saved job, if any, and its jobs not saved yet.

    `read`: how many saved ones were read; `cut`: there may be more of them, for which this pass had no time.
    """

    key: str
    requirements: JobRequirements
    head: ContainerJob | None = None
    fresh: list[int] = field(default_factory=list)
    read: int = 0
    cut: bool = False

    @property
    def age(self) -> int:
        return self.head.pk if self.head is not None else YOUNGEST - self.fresh[0]


class Pass:
    """One look at all that waits. Reads and decides; `write` is a step of its own, and planning leaves it out.

    Saved jobs are known by their ids, `fresh` ones by their negative places: -1 is the first. `named` are waiting
    jobs that somebody asked for: a refusal that is new is recorded for each of them, for others once a class.
    A `bounded` pass that has had enough stops: what comes later in the order is left to the next one, undecided.
    """

    def __init__(
        self,
        hosts: Sequence[HostState],
        fresh: Sequence[ContainerJob] = (),
        named: Iterable[_Named] = (),
        *,
        bounded: bool = True,
    ) -> None:
        self._now = timezone.now()
        self._fresh = fresh
        self._left = MOST_AT_ONCE if bounded else UNLIMITED
        self._records_left = min(MOST_RECORDED, MOST_CELLS // (len(hosts) or 1) + 1) if bounded else UNLIMITED
        self._named: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for entry in named:
            self._named[entry.class_key][entry.pk] = entry.attempt
        self._attempts: dict[int, int] = {}
        self._waiting = self._classes()
        self.more = False
        """Whether something was left to the next pass."""
        self.outcomes: list[Outcome] = []
        self._decide(router.Fleet(hosts, secrets.randbits(63)))

    def _classes(self) -> dict[str, _Waiting]:
        # By the keys that the rows carry, whatever function gave them.
        classes = {
            head.class_key: _Waiting(head.class_key, head.requirements(), head) for head in waiting.heads(self._now)
        }
        for index, job in enumerate(self._fresh):
            needs = job.requirements()
            job.class_key = class_key(needs)
            if job.class_key not in classes:
                classes[job.class_key] = _Waiting(job.class_key, needs)
            classes[job.class_key].fresh.append(-1 - index)
        return classes

    def _decide(self, fleet: router.Fleet) -> None:
        classes = [JobClass(w.requirements, w.age, partial(self._members, w), w.key) for w in self._waiting.values()]
        alive = time.monotonic()
        for outcome in router.settle(fleet, classes):
            self.outcomes.append(outcome)
            entry = self._waiting[outcome.job_class.key]
            if outcome.placed or (
                outcome.refused and (entry.fresh or not waiting.is_known(entry.head, outcome.refused))
            ):
                self._records_left -= 1
            if entry.cut or not self._left or not self._records_left:
                self.more = True
                break
            if time.monotonic() > alive + KEEP_ALIVE_SECONDS:
                # The database throws out whoever stands still inside a transaction.
                alive = time.monotonic()
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")

    def _members(self, entry: _Waiting, count: int) -> Sequence[int]:
        if entry.head is None:
            return entry.fresh[:count]
        ready = Q(not_before=None) | Q(not_before__lte=self._now)
        rows = ContainerJob.objects.filter(waiting.PENDING, ready, class_key=entry.key)
        self._left += entry.read
        most = min(count, self._left)
        found = dict(rows.order_by("pk").values_list("pk", "attempt")[:most])
        self._attempts |= found
        entry.read = len(found)
        self._left -= entry.read
        entry.cut = entry.read == most < count
        # Those that are not saved yet do not overtake what was not even read.
        return list(found) if entry.cut else [*found, *entry.fresh[: count - len(found)]]

    def decisions(self) -> dict[int, Decision]:
        """What was decided on each placed job and on each that is not saved yet."""
        found: dict[int, Decision] = {}
        for outcome in self.outcomes:
            found.update((decision.key, decision) for decision in outcome.placed)
            found.update((decision.key, decision) for decision in self._refused(outcome))
        return found

    def _refused(self, outcome: Outcome) -> list[Decision]:
        """The refusals of jobs that are not saved yet."""
        if outcome.refused is None:
            return []
        placed = {decision.key for decision in outcome.placed if decision.key < 0}
        fresh = self._waiting[outcome.job_class.key].fresh
        return router.refuse([key for key in fresh if key not in placed], outcome.refused)

    # -------------------------------------------------------------- writing

    def write(self, tx: Transaction) -> None:
        """Reserve, record and tell. The caller's transaction holds the routing lock."""
        decided = [decision for outcome in self.outcomes for decision in (*outcome.placed, *self._refused(outcome))]
        for decision in decided:
            if decision.key < 0:
                _apply(self._fresh[-1 - decision.key], decision)
        assign(tx, [decision for decision in decided if decision.key > 0])
        decided += self._news()
        ids = decision_store.new_ids(decided, len(self._fresh))
        for job, pk in zip(self._fresh, ids.jobs, strict=True):
            job.pk = pk
            tx.event(EventKind.JOB_SUBMITTED, f"{job.name or 'A job'} with image {job.image}.", job=job)
        tx.rows.append(bulk.rows_of(ContainerJob, self._claimed(tx)))
        tell(tx, [(*self._attempt(decision.key), decision) for decision in decided], ids)

    def _claimed(self, tx: Transaction) -> list[ContainerJob]:
        """The new jobs as they are to be saved: a few that this process can launch are its own from the start."""
        worker, placed = tx.worker, {job.host_id for job in self._fresh if job.host_id}
        if worker is None or not placed or len(self._fresh) > CLAIMED_AT_ONCE:
            return list(self._fresh)
        # With the database's clock, by which leases run out.
        reachable = ExecutorHost.objects.filter(node__in=["", worker.node]).annotate(now=Now()).in_bulk(placed)
        saved = []
        for job in self._fresh:
            if job.host_id in reachable:
                host = reachable[job.host_id]
                lease = {"lease_owner": worker.owner, "lease_epoch": 1, "lease_expires_at": host.now + worker.lease}
                mine = ContainerJob.of({**vars(job), "status": JobStatus.LAUNCHING, **lease})
                mine.host = host
                tx.claimed.append((mine, Fence(mine.pk, 1)))
                saved.append(mine)
            else:
                saved.append(job)
        return saved

    def _attempt(self, key: int) -> tuple[int, int]:
        """Id and attempt of a job."""
        if key > 0:
            return key, self._attempts[key]
        job = self._fresh[-1 - key]
        return job.pk, job.attempt

    def _news(self) -> list[Decision]:
        """Keeps why each class waits, where that is new; answers decisions on its oldest and on those named."""
        changed: list[tuple[str, Evaluation]] = []
        settled: list[str] = []
        news: list[Decision] = []
        for outcome in self.outcomes:
            entry = self._waiting[outcome.job_class.key]
            head: Any = entry.head
            if outcome.refused is None:
                settled += [entry.key] if head is not None and head.refused_verdict and not entry.cut else []
            elif not waiting.is_known(head, outcome.refused):
                changed.append((entry.key, outcome.refused))
                told = self._named[entry.key] | ({head.pk: head.attempt} if head is not None else {})
                self._attempts |= told
                news += router.refuse(
                    sorted(told.keys() - {decision.key for decision in outcome.placed}), outcome.refused
                )
        waiting.keep(changed)
        waiting.drop(settled)
        return news

    def reserve(self, tx: Transaction) -> bool:
        """Keep room for the job that has waited longest, and give up what is kept in vain.

        Answers whether room has become anybody's again. A pass that did not see all classes changes nothing.
        """
        refused = {outcome.job_class.key: outcome for outcome in self.outcomes if outcome.refused is not None}
        holder = waiting.holder()
        if self.more or (holder is not None and holder.class_key not in refused):
            return False
        if holder is not None:
            evaluation = refused[holder.class_key].refused
            assert evaluation is not None  # noqa: S101 - it is among the refused
            if router.worth_keeping(evaluation, {holder.reserved_host_id or 0}) is not None:
                return False
            waiting.release(tx, holder.pk)
        longest = self._now - timedelta(seconds=settings.CONTAINER_MANAGER.reserve_after_seconds)
        starving = [
            (head.submitted_at, head.pk, head, outcome.refused)
            for key, outcome in refused.items()
            if not outcome.placed and (head := self._waiting[key].head) is not None and head.submitted_at <= longest
        ]
        for _, _, head, evaluation in sorted(starving, key=lambda entry: entry[:2]):
            if evaluation is not None and (host := router.worth_keeping(evaluation)) is not None:
                waiting.reserve(tx, head, host, evaluation)
                break
        return holder is not None


def _apply(job: ContainerJob, decision: Decision) -> None:
    """Put a decision into a job that is about to be inserted."""
    if decision.host is not None:
        job.status = JobStatus.ROUTED
        job.host_id = decision.host.id
        job.executor_type = decision.host.executor_type
        job.routing_reason = decision.reason
        job.queue_deadline = None


def assign(tx: Transaction, placed: Iterable[Decision]) -> None:
    """Reserve their hosts for saved PENDING jobs; the decisions' keys are their ids."""
    rows = []
    for decision in placed:
        if decision.evaluation.requirements.reserved_host is not None:
            waiting.release(tx, decision.key)
        assert decision.host is not None  # noqa: S101 - it was placed
        rows.append((decision.key, decision.host.id, decision.host.executor_type, decision.reason))
    bulk.update(
        ContainerJob,
        "status = 'routed', queue_deadline = NULL",
        {"host_id": "bigint", "executor_type": "text", "routing_reason": "text"},
        rows,
        where="status = 'pending'",
    )


def tell(tx: Transaction, decided: Sequence[tuple[int, int, Decision]], ids: decision_store.Ids) -> None:
    """Record decisions, given as (job id, attempt, decision), and tell the event log and the log of them."""
    tx.rows += decision_store.record(decided, ids)
    for (job_id, _, decision), decision_id in zip(decided, ids.decisions, strict=True):
        host = decision.host
        tx.counted.append((metrics.DECISIONS, _kind(decision)))
        tx.events.append(
            Fact(EventKind.JOB_ROUTED, decision.reason, job_id, host.id, host.name, host.executor_type, decision_id)
            if host
            else Fact(EventKind.JOB_REFUSED, decision.reason, job_id, decision_id=decision_id)
        )
    if len(decided) == 1:
        job_id, _, decision = decided[0]
        where = f"host {decision.host.name}" if decision.host else "no host"
        logger.info("routing: job %s to %s: %s", job_id, where, decision.reason)
    elif decided:
        placed = sum(1 for _, _, decision in decided if decision.host is not None)
        logger.info("routing: %d jobs placed, %d refused", placed, len(decided) - placed)


def _kind(decision: Decision) -> tuple[str, str, str]:
    """Outcome, code and executor type, as decisions are counted."""
    if decision.host is not None:
        return "routed", "", decision.host.executor_type
    evaluation = decision.evaluation
    rejections = evaluation.rejections()
    most = max(rejections, key=lambda code: rejections[code], default="")
    return evaluation.verdict().name.lower(), most, ""


# ------------------------------------------------------------------ units of work


def route(tx: Transaction, fresh: Sequence[ContainerJob] = (), named: Iterable[_Named] = ()) -> Pass:
    """Decide on all that wait and on `fresh` together, and write it."""
    tx.flush()
    with metrics.DECISION_SECONDS.time():
        done = Pass(host_store.snapshot(), fresh, named)
    done.write(tx)
    return done


@under_routing_lock
def route_waiting(tx: Transaction, items: Sequence[None]) -> list[bool]:
    """Route what waits; answers whether another pass could find room."""
    _expire(tx)
    done = route(tx)
    again = done.reserve(tx) or done.more
    return [again] * len(items)


@under_routing_lock
def route_named(
    tx: Transaction, items: Sequence[tuple[Sequence[int], Actor | None]]
) -> list[list[Decision | UserError]]:
    """Route the named PENDING jobs now, among those that wait; one answer each, in order."""
    wanted = {job_id for ids, _ in items for job_id in ids}
    # Asked for by name, a job does not wait for the end of its back-off.
    these = bulk.among("id", wanted)
    ContainerJob.objects.filter(these, status=JobStatus.PENDING).exclude(not_before=None).update(not_before=None)
    rows = ContainerJob.objects.filter(these).values_list("pk", "status", "class_key", "attempt")
    jobs = {row[0]: _Named(*row) for row in rows}
    decided: dict[int, Decision] = {}
    while left := [job for pk, job in jobs.items() if job.status == JobStatus.PENDING and pk not in decided]:
        done = route(tx, named=left)
        decided |= done.decisions()
        if not done.more:
            refused = {o.job_class.key: o.refused for o in done.outcomes if o.refused is not None}
            for job in left:
                if job.pk not in decided and job.class_key in refused:
                    decided[job.pk] = router.refuse([job.pk], refused[job.class_key])[0]
            break
    for ids, actor in items:
        tx.by(actor, "routeJobs" if len(ids) != 1 else "routeJob", f"{len(ids)} jobs" if len(ids) != 1 else ids[0])
    return [[_answer(job_id, jobs, decided) for job_id in ids] for ids, _ in items]


def _answer(job_id: int, jobs: Mapping[int, _Named], decided: Mapping[int, Decision]) -> Decision | UserError:
    if job_id in decided:
        return decided[job_id]
    if job_id not in jobs:
        return NotFound(NO_JOB)
    return Conflict(f"The job is {jobs[job_id].status.upper()}; only a PENDING job can be routed.")


def _expire(tx: Transaction) -> None:
    """Jobs that were not routed in time have failed."""
    now = timezone.now()
    rows = ContainerJob.objects.filter(waiting.PENDING, queue_deadline__isnull=False, queue_deadline__lte=now)
    late = list(rows.defer("environment")[:MOST_AT_ONCE])
    why = waiting.refusals({job.class_key for job in late})
    for job in late:
        if job.reserved_host_id is not None:
            waiting.release(tx, job.pk)
        reason = why[job.class_key].message if job.class_key in why else "The queue had not come to it."
        job.error = f"It was not routed within its queueTimeoutSeconds of {job.queue_timeout_seconds}. {reason}"
        job.status = JobStatus.FAILED
        tx.event(EventKind.JOB_FINISHED, job.error, job=job)
    bulk.update(
        ContainerJob,
        "status = 'failed', queue_deadline = NULL",
        {"error": "text", "finished_at": "timestamptz"},
        [(job.pk, job.error, bulk.as_moment(now)) for job in late],
        where="status = 'pending'",
    )
