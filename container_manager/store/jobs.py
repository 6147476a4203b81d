"""Jobs: submitting, routing and cancelling them, and reading them."""

import logging
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Min, Q
from django.utils import timezone

from container_manager import lifecycle
from container_manager.errors import Conflict, NotFound, UserError
from container_manager.lifecycle import JobStatus
from container_manager.models import ContainerJob, EventKind
from container_manager.routing import router
from container_manager.routing.types import Decision, JobRequest
from container_manager.store import decisions as decision_store
from container_manager.store import hosts as host_store
from container_manager.store.transaction import Actor, Transaction, under_routing_lock

logger = logging.getLogger(__name__)

NO_JOB = "There is no such job."
UPDATED_BY_ROUTING = ["status", "host", "executor_type", "routing_reason", "refusal"]


@dataclass(frozen=True, slots=True)
class Submission:
    """Jobs of one request, not yet saved."""

    jobs: Sequence[ContainerJob]
    actor: Actor | None = None
    action: str = "submitJob"


@under_routing_lock
def submit(tx: Transaction, items: Sequence[Submission]) -> list[list[ContainerJob | Conflict]]:
    """Save new jobs and route them with those that wait. A known idempotency key gives the first job back."""
    known = _by_key(job.idempotency_key for item in items for job in item.jobs if job.idempotency_key)
    fresh: list[ContainerJob] = []
    answers: list[list[ContainerJob | Conflict]] = []
    for item in items:
        answers.append([_accept(job, known, fresh) for job in item.jobs])
        tx.by(item.actor, item.action, f"{len(item.jobs)} jobs" if len(item.jobs) != 1 else item.jobs[0].image)
    if fresh:
        route(tx, fresh)
    return answers


def _by_key(keys: Iterable[str]) -> dict[str, ContainerJob]:
    wanted = list(keys)
    if not wanted:
        return {}
    return {str(job.idempotency_key): job for job in _read(Q(idempotency_key__in=wanted))}


def _as_submitted(job: ContainerJob) -> ContainerJob:
    """The job without what a transaction that failed has put into it."""
    job.pk, job.status, job.refusal = None, JobStatus.PENDING, None
    job.host, job.executor_type, job.routing_reason = None, "", ""
    return job


def _accept(job: ContainerJob, known: dict[str, ContainerJob], fresh: list[ContainerJob]) -> ContainerJob | Conflict:
    if job.idempotency_key and (first := known.setdefault(job.idempotency_key, job)) is not job:
        if first.idempotency_input == job.idempotency_input:
            return first
        return Conflict("idempotencyKey: this key was used before with another input.")
    fresh.append(_as_submitted(job))
    return job


def route(tx: Transaction, fresh: Sequence[ContainerJob] = ()) -> dict[int, Decision]:
    """Decide on all that wait and on `fresh` together; reserve, record and tell. Returns decisions by job id.

    The caller's transaction holds the routing lock.
    """
    now = timezone.now()
    waiting = list(
        ContainerJob.objects.defer("environment").filter(
            Q(not_before=None) | Q(not_before__lte=now), status=JobStatus.PENDING
        )
    )
    if not waiting and not fresh:
        return {}
    # Ids are ages; what is not saved yet is younger than all that is, and known by its negative place.
    youngest = max((job.pk for job in waiting), default=0)
    by_key = {job.pk: job for job in waiting} | {-1 - index: job for index, job in enumerate(fresh)}
    requests = [
        JobRequest(key, key if key > 0 else youngest - key, job.priority, decision_store.requirements(job))
        for key, job in by_key.items()
    ]
    decided = [
        (by_key[decision.key], decision)
        for decision in router.decide(host_store.snapshot(), requests, secrets.randbits(63))
    ]
    changed = [(job, decision) for job, decision in decided if apply(job, decision) or job.pk is None]
    ContainerJob.objects.bulk_create(fresh)
    ContainerJob.objects.bulk_update([job for job, decision in changed if decision.key > 0], UPDATED_BY_ROUTING, 500)
    for job in fresh:
        tx.event(EventKind.JOB_SUBMITTED, f"{job.name or 'A job'} with image {job.image}.", job=job)
    _tell(tx, changed)
    return {job.pk: decision for job, decision in decided}


def apply(job: ContainerJob, decision: Decision) -> bool:
    """Put the decision into the job; False when nothing about it is new."""
    before = job.refusal
    if decision.host is None:
        job.refusal = {
            "message": decision.reason,
            "verdict": decision.verdict.name,
            "rejections": list(decision.evaluation.rejections().items()),
        }
        # As read back from the database: tuples become lists.
        job.refusal["rejections"] = [list(pair) for pair in job.refusal["rejections"]]
        return before is None or any(before[key] != job.refusal[key] for key in ("verdict", "rejections"))
    job.status = JobStatus.ROUTED
    job.host_id = decision.host.id
    job.executor_type = decision.host.executor_type
    job.routing_reason = decision.reason
    job.refusal = None
    return True


def _tell(tx: Transaction, changed: Sequence[tuple[ContainerJob, Decision]]) -> None:
    hosts = host_store.by_ids_bare({job.host_id for job, _ in changed if job.host_id})
    for (job, decision), row in zip(changed, decision_store.record(changed), strict=True):
        logger.info("routing: job %s: %s", job.pk, decision.reason)
        kind = EventKind.JOB_REFUSED if decision.host is None else EventKind.JOB_ROUTED
        tx.event(kind, decision.reason, job=job, host=hosts.get(job.host_id or 0), decision_id=row.pk)


@under_routing_lock
def route_waiting(tx: Transaction, items: Sequence[None]) -> list[int]:
    """Route what waits; answers how many were routed."""
    placed = sum(1 for decision in route(tx).values() if decision.host is not None)
    return [placed] * len(items)


@under_routing_lock
def route_named(
    tx: Transaction, items: Sequence[tuple[Sequence[int], Actor | None]]
) -> list[list[Decision | UserError]]:
    """Route the named PENDING jobs now, among those that wait; one answer each, in order."""
    wanted = {job_id for ids, _ in items for job_id in ids}
    # Asked for by name, a job does not wait for the end of its back-off.
    ContainerJob.objects.filter(pk__in=wanted, status=JobStatus.PENDING).exclude(not_before=None).update(
        not_before=None
    )
    states = dict(ContainerJob.objects.filter(pk__in=wanted).values_list("pk", "status"))
    decided = route(tx)
    for ids, actor in items:
        tx.by(actor, "routeJobs" if len(ids) != 1 else "routeJob", f"{len(ids)} jobs" if len(ids) != 1 else ids[0])
    return [[_answer(job_id, states, decided) for job_id in ids] for ids, _ in items]


def _answer(job_id: int, states: dict[int, str], decided: dict[int, Decision]) -> Decision | UserError:
    if job_id in decided:
        return decided[job_id]
    if job_id not in states:
        return NotFound(NO_JOB)
    return Conflict(f"The job is {states[job_id].upper()}; only a PENDING job can be routed.")


@under_routing_lock
def cancel(tx: Transaction, items: Sequence[tuple[int, Actor | None]]) -> list[ContainerJob | UserError]:
    """Cancel at once what has no container; ask for the end of what has one."""
    return [_cancel(tx, job_id, actor) for job_id, actor in items]


def _cancel(tx: Transaction, job_id: int, actor: Actor | None) -> ContainerJob | UserError:
    now = timezone.now()
    rows = ContainerJob.objects.filter(pk=job_id)
    # A claim takes its job out of ROUTED without the routing lock, so both updates are conditional.
    at_once = rows.filter(status__in=lifecycle.sources(JobStatus.CANCELLED) - lifecycle.IN_HAND).update(
        status=JobStatus.CANCELLED, cancel_requested_at=now, finished_at=now, refusal=None
    )
    asked = not at_once and rows.filter(status__in=lifecycle.IN_HAND, cancel_requested_at=None).update(
        cancel_requested_at=now
    )
    job = one(job_id)
    if job is None:
        return NotFound(NO_JOB)
    if at_once:
        tx.event(EventKind.JOB_CANCELLED, "Cancelled before it had a container.", job=job, host=job.host)
    elif asked:
        tx.event(EventKind.JOB_CANCEL_REQUESTED, "Its container is being stopped.", job=job, host=job.host)
    elif job.status in lifecycle.TERMINAL:
        return Conflict(f"The job has ended already: it is {job.status.upper()}.")
    tx.by(actor, "cancelJob", job_id)
    return job


# ------------------------------------------------------------------ reading


def _read(where: Q) -> Any:
    # The API gives the names of environment variables only; their values stay encrypted.
    return ContainerJob.objects.defer("environment").select_related("host").filter(where)


def one(job_id: int) -> ContainerJob | None:
    """A job with its host, or None."""
    found: ContainerJob | None = _read(Q(pk=job_id)).first()
    return found


def by_ids(ids: Iterable[int]) -> dict[int, ContainerJob]:
    """Jobs by id; those that do not exist are left out."""
    return {job.pk: job for job in _read(Q(pk__in=list(ids)))}


def matching(where: Q, limit: int, newest_first: bool = True) -> list[ContainerJob]:
    """Jobs by age."""
    return list(_read(where).order_by("-pk" if newest_first else "pk")[:limit])


def next_not_before() -> datetime | None:
    """When the next back-off of a waiting job ends; what is over already waits for room, not for time."""
    waiting = ContainerJob.objects.filter(status=JobStatus.PENDING, not_before__gt=timezone.now())
    moment: datetime | None = waiting.aggregate(at=Min("not_before"))["at"]
    return moment
