"""Jobs: submitting, cancelling and retrying them, and reading them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Q

from container_manager import clock
from container_manager.domain import lifecycle
from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import JobStatus
from container_manager.errors import NO_JOB, Conflict, NotFound, UserError
from container_manager.models import ContainerJob
from container_manager.store import attempts, bulk, pending, reservations
from container_manager.store.scheduling import route
from container_manager.store.transaction import Actor, Transaction, under_routing_lock


@dataclass(frozen=True, slots=True)
class Submission:
    """Jobs of one request, not yet saved."""

    jobs: Sequence[ContainerJob]
    actor: Actor | None = None
    action: str = "submitJob"

    @property
    def weight(self) -> int:
        return len(self.jobs)


@under_routing_lock
def submit(tx: Transaction, items: Sequence[Submission]) -> list[list[ContainerJob | Conflict]]:
    """Save new jobs and route them together with the pending ones. A known idempotency key returns the first job."""
    known = _by_key(key for item in items for job in item.jobs for key in job.idempotency_keys)
    new_jobs: list[ContainerJob] = []
    answers = [[_accept(job, known, new_jobs) for job in item.jobs] for item in items]
    if new_jobs:
        route(tx, new_jobs)
    for item, accepted in zip(items, answers, strict=True):
        _audit(tx, item, accepted)
    return answers


def _audit(tx: Transaction, item: Submission, answers: Sequence[ContainerJob | Conflict]) -> None:
    ids = [answer.pk for answer in answers if isinstance(answer, ContainerJob)]
    if len(answers) == 1:
        tx.audit(item.actor, item.action, ids[0] if ids else "", answers[0], item.jobs[0].image)
        return
    detail = f"ids {min(ids)} to {max(ids)}" if ids else ""
    tx.audit(item.actor, item.action, f"{len(ids)} of {len(answers)} jobs", detail=detail)


def _by_key(keys: Iterable[str]) -> dict[str, ContainerJob]:
    wanted = list(keys)
    if not wanted:
        return {}
    return {str(job.idempotency_key): job for job in _jobs(Q(idempotency_key__in=wanted))}


def _accept(job: ContainerJob, known: dict[str, ContainerJob], new_jobs: list[ContainerJob]) -> ContainerJob | Conflict:
    first = next((known[key] for key in job.idempotency_keys if key in known), None)
    if first is not None:
        if first.idempotency_input in job.idempotency_inputs:
            return first
        return Conflict("this key was used before with another input.", "idempotencyKey")
    known.update(dict.fromkeys(job.idempotency_keys, job))
    new_jobs.append(_as_submitted(job))
    return job


def _as_submitted(job: ContainerJob) -> ContainerJob:
    """The job without the values that a failed transaction may have put into it."""
    job.pk, job.status, job.environment_names = None, JobStatus.PENDING, sorted(job.environment)
    job.host, job.executor_type, job.routing_reason, job.routed_at = None, "", "", None
    job.queued_at = job.submitted_at
    if job.queue_timeout_seconds is not None:
        job.queue_deadline = job.submitted_at + timedelta(seconds=job.queue_timeout_seconds)
    return job


@under_routing_lock
def cancel(tx: Transaction, items: Sequence[tuple[int, Actor | None]]) -> list[ContainerJob | UserError]:
    """Cancel jobs without a container at once; request the cancellation of those that have one."""
    # Lock the jobs in the order of their ids (the global lock order).
    rows = ContainerJob.objects.filter(bulk.id_in("id", [job_id for job_id, _ in items])).order_by("pk")
    list(rows.select_for_update().values_list("pk"))
    answers = []
    for job_id, actor in items:
        answers.append(_cancel(tx, job_id, actor))
        tx.audit(actor, "cancelJob", job_id, answers[-1])
    return answers


def _cancel(tx: Transaction, job_id: int, actor: Actor | None) -> ContainerJob | UserError:
    now, by = clock.now(), actor.name if actor else ""
    rows = ContainerJob.objects.filter(pk=job_id)
    # A claim moves its job out of ROUTED without the routing lock, so both updates are conditional.
    at_once = rows.filter(status__in=lifecycle.sources(JobStatus.CANCELLED) - lifecycle.CLAIMED).update(
        status=JobStatus.CANCELLED, cancel_requested_at=now, cancelled_by=by, finished_at=now, queue_deadline=None
    )
    if at_once:
        reservations.end_for_job(tx, job_id)
    requested = not at_once and rows.filter(status__in=lifecycle.CLAIMED, cancel_requested_at=None).update(
        cancel_requested_at=now, cancelled_by=by
    )
    job = one(job_id)
    if job is None:
        return NotFound(NO_JOB)
    if at_once:
        tx.event(EventKind.JOB_CANCELLED, "Cancelled before it had a container.", job=job, host=job.host, actor=actor)
    elif requested:
        tx.event(EventKind.JOB_CANCEL_REQUESTED, "Its container is being stopped.", job=job, host=job.host, actor=actor)
    elif job.status in lifecycle.TERMINAL:
        return Conflict(f"The job has ended already: it is {job.status.upper()}.")
    return job


@under_routing_lock
def retry(tx: Transaction, items: Sequence[tuple[int, Actor | None]]) -> list[ContainerJob | UserError]:
    """Open another attempt of jobs that ended without success, and route them together with the pending ones."""
    refused = []
    for job_id, actor in items:
        refused.append(_reopen(tx, job_id, actor))
        tx.audit(actor, "retryJob", job_id, refused[-1])
    if None in refused:
        route(tx)
    jobs = by_ids(job_id for job_id, _ in items)
    return [jobs[job_id] if why is None else why for why, (job_id, _) in zip(refused, items, strict=True)]


def _reopen(tx: Transaction, job_id: int, actor: Actor | None) -> UserError | None:
    job = _jobs(Q(pk=job_id)).select_for_update(of=("self",)).first()
    if job is None:
        return NotFound(NO_JOB)
    if job.status not in lifecycle.sources(JobStatus.PENDING) - lifecycle.CLAIMED:
        return Conflict(f"The job is {job.status.upper()}; only a job that ended without success can be retried.")
    by = f" by {actor.name}" if actor else ""
    why = f"Attempt {job.attempt} ended {job.status.upper()}; a retry was requested{by}."
    attempts.open_next(tx, job, why, actor=actor)
    ContainerJob.objects.filter(pk=job_id).update(
        cancel_requested_at=None,
        answered_failures=0,
        error="",
    )
    pending.reclassify(job, failed_hosts=[], unfit_hosts=[])
    return None


# ------------------------------------------------------------------ reading


LONG_TEXTS = ("command", "entry_point", "environment_names")


def _jobs(where: Q) -> Any:
    # The API shows only the names of environment variables, so the values need not be decrypted.
    return ContainerJob.objects.defer("environment").filter(where)


def one(job_id: int) -> ContainerJob | None:
    """A job with its host, or None."""
    found: ContainerJob | None = _jobs(Q(pk=job_id)).select_related("host").first()
    return found


def by_ids(ids: Iterable[int], with_texts: bool = True) -> dict[int, ContainerJob]:
    """Jobs by id; those that do not exist are left out."""
    return {job.pk: job for job in _shown(Q(pk__in=list(ids)), with_texts)}


def _shown(where: Q, with_texts: bool) -> Any:
    return _jobs(where) if with_texts else _jobs(where).defer(*LONG_TEXTS)


def count_active() -> int:
    """How many jobs hold room on a host."""
    return ContainerJob.objects.filter(status__in=lifecycle.ACTIVE).count()
