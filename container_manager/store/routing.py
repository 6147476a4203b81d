"""The queue: reads what waits by classes, has it decided, and writes what was decided."""

import logging
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import orjson
from django.conf import settings
from django.db import connection
from django.db.models import BooleanField, Q
from django.db.models.expressions import RawSQL
from django.utils import timezone

from container_manager.errors import Conflict, NotFound, UserError
from container_manager.lifecycle import JobStatus
from container_manager.models import ContainerJob, EventKind, QueueRefusal, class_key
from container_manager.routing import router
from container_manager.routing.reasons import refusal
from container_manager.routing.types import (
    Decision,
    Evaluation,
    HostState,
    JobClass,
    JobRequirements,
    Outcome,
)
from container_manager.store import bulk
from container_manager.store import decisions as decision_store
from container_manager.store import hosts as host_store
from container_manager.store.transaction import Actor, Fact, Transaction, under_routing_lock

logger = logging.getLogger(__name__)

NO_JOB = "There is no such job."
MOST_AT_ONCE = 10_000
"""Waiting jobs that one transaction places; the next one goes on."""

YOUNGEST = 1 << 62
"""The age of jobs that have no id yet; ids are ages."""

# A literal, not a parameter: SQLite uses a partial index only when it can prove that the condition implies it.
PENDING = RawSQL("container_manager_containerjob.status = 'pending'", [], output_field=BooleanField())
_READY = "status = 'pending' AND (not_before IS NULL OR not_before <= %s)"

# Jumps from class to class on the index `job_waiting`, and reads of each class its oldest job only.
_HEADS = f"""
    WITH RECURSIVE waiting (class_key) AS (
        SELECT (SELECT MIN(class_key) FROM container_manager_containerjob WHERE status = 'pending')
        UNION ALL
        SELECT (SELECT MIN(class_key) FROM container_manager_containerjob
                WHERE status = 'pending' AND class_key > waiting.class_key)
        FROM waiting WHERE waiting.class_key IS NOT NULL
    )
    SELECT job.id, job.class_key, job.attempt, job.memory_limit, job.cpu_limit, job.preferred_executor,
           job.executor_required, job.region_preference, job.region_required, job.host_selector, job.strategy,
           job.priority, job.reserved_host_id, job.submitted_at,
           refusal.verdict AS refused_verdict, refusal.rejections AS refused_rejections
    FROM waiting
    JOIN container_manager_containerjob job ON job.id = (
        SELECT id FROM container_manager_containerjob
        WHERE class_key = waiting.class_key AND {_READY} ORDER BY id LIMIT 1
    )
    LEFT JOIN container_manager_queuerefusal refusal ON refusal.class_key = waiting.class_key
"""  # noqa: S608 - constants of this module


class _Named(NamedTuple):
    pk: int
    status: str
    class_key: str
    attempt: int


@dataclass(slots=True)
class _Waiting:
    """A class in this pass: its oldest saved job, if any, its jobs not saved yet, and how many saved ones were read."""

    requirements: JobRequirements
    head: ContainerJob | None = None
    fresh: list[int] = field(default_factory=list)
    read: int = 0

    @property
    def key(self) -> str:
        return class_key(self.requirements)


class Pass:
    """One look at all that waits. Reads and decides; `write` is a step of its own, and planning leaves it out.

    Saved jobs are known by their ids, `fresh` ones by their negative places: -1 is the first. `named` are waiting
    jobs that somebody asked for: a refusal that is new is recorded for each of them, for others once a class.
    """

    def __init__(
        self,
        hosts: Sequence[HostState],
        fresh: Sequence[ContainerJob] = (),
        named: Iterable[_Named] = (),
        most: int = MOST_AT_ONCE,
    ) -> None:
        self._now = timezone.now()
        self._fresh = fresh
        self._left = most
        self._named: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for entry in named:
            self._named[entry.class_key][entry.pk] = entry.attempt
        self._attempts: dict[int, int] = {}
        self._waiting: dict[JobRequirements, _Waiting] = {}
        for head in _heads(self._now):
            needs = head.requirements()
            self._waiting[needs] = _Waiting(needs, head)
        for index, job in enumerate(fresh):
            needs = job.requirements()
            if needs not in self._waiting:
                self._waiting[needs] = _Waiting(needs)
            self._waiting[needs].fresh.append(-1 - index)
            job.class_key = class_key(needs)
        self.outcomes = router.settle(
            router.Fleet(hosts, secrets.randbits(63)),
            [JobClass(w.requirements, _age(w), partial(self._members, w)) for w in self._waiting.values()],
        )

    @property
    def more(self) -> bool:
        """Whether jobs were left for the next pass because this one had enough."""
        return not self._left

    def _members(self, waiting: _Waiting, count: int) -> Sequence[int]:
        if waiting.head is None:
            return waiting.fresh[:count]
        ready = Q(not_before=None) | Q(not_before__lte=self._now)
        rows = ContainerJob.objects.filter(PENDING, ready, class_key=waiting.key)
        self._left += waiting.read
        most = min(count, self._left)
        found = dict(rows.order_by("pk").values_list("pk", "attempt")[:most])
        self._attempts |= found
        keys = list(found)
        waiting.read = len(keys)
        self._left -= waiting.read
        if not self._left and most < count:
            # Those that are not saved yet do not overtake what was not even read.
            return keys
        return keys + waiting.fresh[: count - len(keys)]

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
        fresh = self._waiting[outcome.job_class.requirements].fresh
        return router.refuse([key for key in fresh if key not in placed], outcome.refused)

    # -------------------------------------------------------------- writing

    def write(self, tx: Transaction) -> None:
        """Reserve, record and tell. The caller's transaction holds the routing lock."""
        decided = [decision for outcome in self.outcomes for decision in (*outcome.placed, *self._refused(outcome))]
        for decision in decided:
            if decision.key < 0:
                _apply(self._fresh[-1 - decision.key], decision)
        assign([decision for decision in decided if decision.key > 0])
        decided += self._news()
        ids = decision_store.new_ids(decided, len(self._fresh))
        for job, pk in zip(self._fresh, ids.jobs, strict=True):
            job.pk = pk
            tx.event(EventKind.JOB_SUBMITTED, f"{job.name or 'A job'} with image {job.image}.", job=job)
        tx.rows.append(bulk.rows_of(ContainerJob, self._fresh))
        tell(tx, [(*self._attempt(decision.key), decision) for decision in decided], ids)

    def _attempt(self, key: int) -> tuple[int, int]:
        """Id and attempt of a job."""
        if key > 0:
            return key, self._attempts[key]
        job = self._fresh[-1 - key]
        return job.pk, job.attempt

    def _news(self) -> list[Decision]:
        """Keeps why each class waits, where that is new; answers decisions on its oldest and on those named."""
        changed, settled, news = [], [], []
        for outcome in self.outcomes:
            waiting = self._waiting[outcome.job_class.requirements]
            head: Any = waiting.head
            if outcome.refused is None:
                settled += [waiting.key] if head is not None and head.refused_verdict else []
            elif head is None or not _is_known(head, outcome.refused):
                changed.append(_refusal(waiting.key, outcome.refused))
                told = self._named[waiting.key] | ({head.pk: head.attempt} if head is not None else {})
                keys = sorted(told.keys() - {decision.key for decision in outcome.placed})
                self._attempts |= told
                news += router.refuse(keys, outcome.refused)
        _keep(changed)
        if settled:
            QueueRefusal.objects.filter(pk__in=settled).delete()
        return news

    # -------------------------------------------------------------- the one reservation

    def reserve(self, tx: Transaction) -> bool:
        """Keep room for the job that has waited longest, and give up what is kept in vain.

        Answers whether room has become anybody's again.
        """
        given_up = False
        for outcome in self.outcomes:
            needs = outcome.job_class.requirements
            if needs.reserved_host is not None and outcome.refused is not None:
                if router.worth_keeping(outcome.refused, {needs.reserved_host}) is not None:
                    return False
                head = self._waiting[needs].head
                assert head is not None  # noqa: S101 - a reservation is a saved job's
                unreserve(head.pk)
                given_up = True
        longest = self._now - timedelta(seconds=settings.CONTAINER_MANAGER.reserve_after_seconds)
        starving = [
            (head.submitted_at, head, outcome.refused)
            for outcome in self.outcomes
            if not outcome.placed
            and outcome.refused is not None
            and (head := self._waiting[outcome.job_class.requirements].head) is not None
            and head.submitted_at <= longest
        ]
        for _, head, evaluation in sorted(starving, key=lambda entry: (entry[0], entry[1].pk)):
            if (host := router.worth_keeping(evaluation)) is not None:
                _reserve(tx, head, host, evaluation)
                break
        return given_up


def _heads(now: datetime) -> Iterable[ContainerJob]:
    """The oldest job of each class that waits and may be routed now."""
    with connection.cursor() as cursor:
        # Mostly nothing waits, and this is the shortest way to know.
        cursor.execute("SELECT MIN(class_key) FROM container_manager_containerjob WHERE status = 'pending'")
        if cursor.fetchone() == (None,):
            return []
    return ContainerJob.objects.raw(_HEADS, [bulk.as_moment(now)])


def _age(waiting: _Waiting) -> int:
    return waiting.head.pk if waiting.head is not None else YOUNGEST - waiting.fresh[0]


def _apply(job: ContainerJob, decision: Decision) -> None:
    """Put a decision into a job that is about to be inserted."""
    if decision.host is not None:
        job.status = JobStatus.ROUTED
        job.host_id = decision.host.id
        job.executor_type = decision.host.executor_type
        job.routing_reason = decision.reason
        job.queue_deadline = None


def assign(placed: Iterable[Decision]) -> None:
    """Reserve their hosts for saved PENDING jobs; the decisions' keys are their ids."""
    rows = []
    for decision in placed:
        if decision.evaluation.requirements.reserved_host is not None:
            unreserve(decision.key)
        assert decision.host is not None  # noqa: S101 - it was placed
        rows.append((decision.key, decision.host.id, decision.host.executor_type, decision.reason))
    bulk.update(
        ContainerJob,
        "status = 'routed', queue_deadline = NULL",
        {"host_id": "bigint", "executor_type": "text", "routing_reason": "text"},
        rows,
    )


def tell(tx: Transaction, decided: Sequence[tuple[int, int, Decision]], ids: decision_store.Ids) -> None:
    """Record decisions, given as (job id, attempt, decision), and tell the event log and the log of them."""
    tx.rows += decision_store.record(decided, ids)
    for (job_id, _, decision), decision_id in zip(decided, ids.decisions, strict=True):
        host = decision.host
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


# ------------------------------------------------------------------ refusals, one a class


def _refusal(key: str, evaluation: Evaluation) -> QueueRefusal:
    return QueueRefusal(
        class_key=key,
        verdict=evaluation.verdict().name,
        message=refusal(evaluation),
        rejections=[list(pair) for pair in evaluation.rejections().items()],
    )


def _is_known(head: Any, evaluation: Evaluation) -> bool:
    """Whether this is what the class was refused with before."""
    if head.refused_verdict != evaluation.verdict().name:
        return False
    before = orjson.loads(head.refused_rejections)
    return bool(before == [list(pair) for pair in evaluation.rejections().items()])


def _keep(refusals: Sequence[QueueRefusal]) -> None:
    QueueRefusal.objects.bulk_create(
        refusals, update_conflicts=True, unique_fields=["class_key"], update_fields=["verdict", "message", "rejections"]
    )


def refusals(keys: Iterable[str]) -> dict[str, QueueRefusal]:
    """Why classes wait, by their keys."""
    return QueueRefusal.objects.in_bulk(list(keys))


def _reserve(tx: Transaction, job: ContainerJob, host: HostState, evaluation: Evaluation) -> None:
    job.reserved_host_id = host.id
    job.class_key = class_key(job.requirements())
    ContainerJob.objects.filter(pk=job.pk).update(reserved_host_id=host.id, class_key=job.class_key)
    _keep([_refusal(job.class_key, evaluation._replace(requirements=job.requirements()))])
    message = f"Host {host.name} keeps its room for this job, which has waited long."
    tx.events.append(Fact(EventKind.HOST_RESERVED, message, job.pk, host.id, host.name, host.executor_type))


def unreserve(job_id: int) -> None:
    """Room that was kept for this job is anybody's again."""
    job = ContainerJob.objects.filter(pk=job_id).exclude(reserved_host=None).defer("environment").first()
    if job is not None:
        job.reserved_host_id = None
        key = class_key(job.requirements())
        ContainerJob.objects.filter(pk=job_id).update(reserved_host_id=None, class_key=key)


# ------------------------------------------------------------------ units of work


def route(tx: Transaction, fresh: Sequence[ContainerJob] = (), named: Iterable[_Named] = ()) -> Pass:
    """Decide on all that wait and on `fresh` together, and write it."""
    tx.flush()
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
            refused = {class_key(o.job_class.requirements): o.refused for o in done.outcomes if o.refused is not None}
            for job in left:
                if job.pk not in decided and (evaluation := refused.get(job.class_key)) is not None:
                    decided |= {job.pk: router.refuse([job.pk], evaluation)[0]}
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
    rows = ContainerJob.objects.filter(PENDING, queue_deadline__isnull=False, queue_deadline__lte=now)
    late = list(rows.defer("environment")[:MOST_AT_ONCE])
    why = refusals({job.class_key for job in late})
    for job in late:
        if job.reserved_host_id is not None:
            unreserve(job.pk)
        reason = why[job.class_key].message if job.class_key in why else "The queue had not come to it."
        job.error = f"It was not routed within its queueTimeoutSeconds of {job.queue_timeout_seconds}. {reason}"
        tx.event(EventKind.JOB_FINISHED, job.error, job=job)
    bulk.update(
        ContainerJob,
        "status = 'failed', queue_deadline = NULL",
        {"error": "text", "finished_at": "timestamptz"},
        [(job.pk, job.error, bulk.as_moment(now)) for job in late],
    )


def forget_refusals(tx: Transaction, items: Sequence[None]) -> list[None]:  # noqa: ARG001
    """Drop why classes waited that wait no more."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM container_manager_queuerefusal WHERE NOT EXISTS (SELECT 1 FROM container_manager_containerjob "
            "job WHERE job.status = 'pending' AND job.class_key = container_manager_queuerefusal.class_key)"
        )
    return [None] * len(items)
