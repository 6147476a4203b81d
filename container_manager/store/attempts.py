"""The attempts of a job: opening the next one, and reading the earlier ones."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.db.models import F

from container_manager import clock
from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import JobStatus
from container_manager.models import ContainerJob, ExecutorHost, JobAttempt
from container_manager.store.transaction import Actor, Transaction

SHARED_FIELDS = (
    "attempt", "status", "host_id", "executor_type", "execution_id", "exit_code", "error", "failure", "cancelled_by",
)  # fmt: skip
TIME_FIELDS = ("queued_at", "routed_at", "launched_at", "started_at", "finished_at")

NEW_ATTEMPT: dict[str, Any] = {
    "status": JobStatus.PENDING,
    "host": None,
    "executor_type": "",
    "routing_reason": "",
    "message": "",
    "execution_id": "",
    "exit_code": None,
    "failure": "",
    "cancelled_by": "",
    "stop_reason": "",
    "stopped_at": None,
    "lease_owner": "",
    "lease_expires_at": None,
    **dict.fromkeys(TIME_FIELDS),
}
"""The values with which an attempt begins."""


def latest(job: ContainerJob, host: ExecutorHost | None) -> JobAttempt:
    """The attempt that the job row itself describes, on its host."""
    values = {name: getattr(job, name) for name in (*SHARED_FIELDS, *TIME_FIELDS)}
    return JobAttempt(job_id=job.pk, host_name=host.name if host else "", **values)


def open_next(
    tx: Transaction, job: ContainerJob, why: str, delay: timedelta = timedelta(), actor: Actor | None = None
) -> None:
    """Store the attempt that has ended, as described by `job`, and open the next one after `delay`."""
    latest(job, job.host).save()
    begins, wait = clock.now() + delay, job.queue_timeout_seconds
    ContainerJob.objects.filter(pk=job.pk).update(
        **{**NEW_ATTEMPT, "queued_at": begins},
        attempt=F("attempt") + 1,
        error=why,
        not_before=begins if delay else None,
        queue_deadline=None if wait is None else begins + timedelta(seconds=wait),
    )
    tx.event(EventKind.JOB_RETRIED, why, job=job, host=job.host, actor=actor)


def of_jobs(job_ids: Iterable[int]) -> dict[int, list[JobAttempt]]:
    """The earlier attempts of each job, oldest first."""
    found: dict[int, list[JobAttempt]] = {job_id: [] for job_id in job_ids}
    for attempt in JobAttempt.objects.filter(job_id__in=found).order_by("attempt"):
        found[attempt.job_id].append(attempt)
    return found
