"""What workers write. Every write carries the claim's epoch: whoever lost the job changes nothing."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from django.db import connection
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Now
from django.utils import timezone

from container_manager import lifecycle
from container_manager.executors.output import OutputLine
from container_manager.lifecycle import JobStatus, sources
from container_manager.models import ContainerJob, EventKind, JobOutput
from container_manager.store.hosts import count_failure, count_launch_failure, forgive
from container_manager.store.transaction import Transaction, under_routing_lock

CLAIM_AT_ONCE = 500
LONGEST_BACK_OFF = 60
IN_HAND = sorted(lifecycle.IN_HAND)


class LeaseLostError(Exception):
    """Somebody else owns the job now: stop, and change nothing."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Who claims: a process, and the node it is on."""

    owner: str
    node: str
    lease: timedelta


@dataclass(frozen=True, slots=True)
class Fence:
    """A claim on a job; every write of its owner names it."""

    job_id: int
    epoch: int

    def rows(self) -> Any:
        return ContainerJob.objects.filter(pk=self.job_id, lease_epoch=self.epoch, status__in=IN_HAND)


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended."""

    status: JobStatus
    exit_code: int | None = None
    error: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    output: Sequence[OutputLine] = field(default_factory=tuple)


def claim(tx: Transaction, items: Sequence[Worker]) -> list[list[tuple[ContainerJob, Fence]]]:  # noqa: ARG001
    """Give each worker the jobs that are routed to hosts its node can reach, and those whose lease has run out."""
    return [_claim(worker) for worker in items]


def _claim(worker: Worker) -> list[tuple[ContainerJob, Fence]]:
    rows = ContainerJob.objects.filter(
        Q(status=JobStatus.ROUTED) | Q(status__in=IN_HAND, lease_expires_at__lt=Now()), host__node__in=["", worker.node]
    ).order_by("-priority", "pk")
    if connection.features.has_select_for_update_skip_locked:
        rows = rows.select_for_update(skip_locked=True, of=("self",))
    ids = list(rows.values_list("pk", flat=True)[:CLAIM_AT_ONCE])
    if not ids:
        return []
    ContainerJob.objects.filter(pk__in=ids).update(
        status=Case(When(status=JobStatus.ROUTED, then=Value(JobStatus.LAUNCHING)), default=F("status")),
        lease_owner=worker.owner,
        lease_epoch=F("lease_epoch") + 1,
        lease_expires_at=Now() + worker.lease,
    )
    jobs = ContainerJob.objects.select_related("host").filter(pk__in=ids).order_by("-priority", "pk")
    return [(job, Fence(job.pk, job.lease_epoch)) for job in jobs]


def renew(tx: Transaction, items: Sequence[tuple[Worker, Sequence[int]]]) -> list[list[int]]:  # noqa: ARG001
    """Lengthen the worker's leases on these jobs; answers which of them are to be cancelled."""
    return [_renew(worker, jobs) for worker, jobs in items]


def _renew(worker: Worker, jobs: Sequence[int]) -> list[int]:
    held = ContainerJob.objects.filter(pk__in=jobs, status__in=IN_HAND, lease_owner=worker.owner)
    held.update(lease_expires_at=Now() + worker.lease)
    return list(held.exclude(cancel_requested_at=None).values_list("pk", flat=True))


def release(tx: Transaction, items: Sequence[str]) -> list[int]:  # noqa: ARG001
    """Let go of all leases of an owner, so that the next claim takes its jobs over at once. "" is everybody's."""
    return [
        ContainerJob.objects.filter(Q(lease_owner=owner) if owner else Q(), status__in=IN_HAND).update(
            lease_expires_at=Now() - timedelta(seconds=1)
        )
        for owner in items
    ]


def created(tx: Transaction, items: Sequence[tuple[Fence, str]]) -> list[object]:
    """The execution exists and is about to be started; from here on it may have run."""
    return [_created(tx, fence, execution_id) for fence, execution_id in items]


def _created(tx: Transaction, fence: Fence, execution_id: str) -> object:
    first = fence.rows().filter(launched_at=None).update(execution_id=execution_id, launched_at=timezone.now())
    if not first and not fence.rows().update(execution_id=execution_id):
        return LeaseLostError()
    if first:
        job = _job(fence)
        tx.event(EventKind.JOB_LAUNCHED, f"Attempt {job.attempt} has a container.", job=job, host=job.host)
    return None


def discarded(tx: Transaction, items: Sequence[Fence]) -> list[object]:  # noqa: ARG001
    """What was created has not run and is about to be removed."""
    return [None if fence.rows().update(execution_id="") else LeaseLostError() for fence in items]


def started(tx: Transaction, items: Sequence[tuple[Fence, datetime]]) -> list[object]:
    """The execution runs."""
    answers = [_started(tx, fence, at) for fence, at in items]
    forgive({event.host_id for event in tx.events if event.kind == EventKind.JOB_STARTED})
    return answers


def _started(tx: Transaction, fence: Fence, at: datetime) -> object:
    if fence.rows().filter(status__in=sources(JobStatus.RUNNING)).update(status=JobStatus.RUNNING, started_at=at):
        job = _job(fence)
        tx.event(EventKind.JOB_STARTED, f"Attempt {job.attempt} runs.", job=job, host=job.host)
        return None
    return None if fence.rows().exists() else LeaseLostError()


@under_routing_lock
def finished(tx: Transaction, items: Sequence[tuple[Fence, End]]) -> list[object]:
    """The attempt has ended; its room is free with this commit. A failure with attempts left opens the next one."""
    return [_finished(tx, fence, end) for fence, end in items]


def _finished(tx: Transaction, fence: Fence, end: End, *, final: bool = False) -> object:
    changes = {"started_at": end.started_at} if end.started_at else {}
    if (
        not fence.rows()
        .filter(status__in=sources(end.status))
        .update(
            status=end.status,
            exit_code=end.exit_code,
            error=end.error,
            finished_at=end.finished_at or timezone.now(),
            lease_owner="",
            lease_expires_at=None,
            **changes,
        )
    ):
        return LeaseLostError()
    job = _job(fence)
    JobOutput.objects.create(
        job_id=job.pk, attempt=job.attempt, lines=zlib.compress(orjson.dumps([list(line) for line in end.output]))
    )
    kind = EventKind.JOB_CANCELLED if end.status == JobStatus.CANCELLED else EventKind.JOB_FINISHED
    tx.event(kind, end.error or f"{end.status.upper()}, exit code {end.exit_code}", job=job, host=job.host)
    failed = end.status in {JobStatus.FAILED, JobStatus.TIMED_OUT}
    own_attempts = job.attempt - job.infrastructure_failures
    if failed and not final and own_attempts < job.max_attempts and not job.cancel_requested_at:
        _next_attempt(tx, job, timedelta(), f"Attempt {job.attempt} of {job.max_attempts} ended {end.status.upper()}.")
    return None


@dataclass(frozen=True, slots=True)
class HostFault:
    """The host failed a job before it ran. `retries` None: it did not even answer, and is counted out like a probe."""

    error: str
    retries: int | None


@under_routing_lock
def host_failed(tx: Transaction, items: Sequence[tuple[Fence, HostFault]]) -> list[object]:
    """Route the job anew, with back-off, as often as the fault allows; then it has FAILED."""
    return [_host_failed(tx, fence, fault) for fence, fault in items]


def _host_failed(tx: Transaction, fence: Fence, fault: HostFault) -> object:
    if not fence.rows().update(infrastructure_failures=F("infrastructure_failures") + 1):
        return LeaseLostError()
    job = _job(fence)
    if job.cancel_requested_at:
        return _finished(tx, fence, End(JobStatus.CANCELLED, error=fault.error))
    if job.host is not None:
        count_launch_failure(tx, job.host, fault.error)
    if fault.retries is None and job.host is not None:
        count_failure(tx, job.host, fault.error)
    elif fault.retries is not None and job.infrastructure_failures > fault.retries:
        return _finished(tx, fence, End(JobStatus.FAILED, error=fault.error), final=True)
    delay = timedelta(seconds=min(2.0 ** min(job.infrastructure_failures - 1, 10), LONGEST_BACK_OFF))
    _next_attempt(tx, job, delay, fault.error)
    return None


def _next_attempt(tx: Transaction, job: ContainerJob, delay: timedelta, why: str) -> None:
    host = job.host
    ContainerJob.objects.filter(pk=job.pk).update(
        status=JobStatus.PENDING,
        attempt=F("attempt") + 1,
        host=None,
        executor_type="",
        execution_id="",
        exit_code=None,
        error=why,
        launched_at=None,
        started_at=None,
        finished_at=None,
        lease_owner="",
        lease_expires_at=None,
        not_before=timezone.now() + delay if delay else None,
    )
    tx.event(EventKind.JOB_RETRIED, why, job=job, host=host)


def _job(fence: Fence) -> ContainerJob:
    return ContainerJob.objects.defer("environment").select_related("host").get(pk=fence.job_id)


def outputs(job_ids: Iterable[int]) -> dict[int, list[OutputLine]]:
    """What the ended attempts of each job wrote, oldest attempt first."""
    found: dict[int, list[OutputLine]] = {job_id: [] for job_id in job_ids}
    rows = JobOutput.objects.filter(job_id__in=found).order_by("attempt").values_list("job_id", "lines")
    for job_id, lines in rows:
        found[job_id] += [OutputLine(*line) for line in orjson.loads(zlib.decompress(bytes(lines)))]
    return found
