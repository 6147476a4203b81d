"""The attempts of a job: opening the next one, and reading what each did and wrote."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import chain, islice
from typing import NamedTuple

import orjson
from django.db.models import F
from django.utils import timezone

from container_manager import lifecycle
from container_manager.errors import Conflict, NotFound
from container_manager.executors.output import Output, OutputLine
from container_manager.lifecycle import JobStatus
from container_manager.models import ContainerJob, EventKind, ExecutorHost, HealthStatus, JobAttempt, JobOutput
from container_manager.store.hosts import UNHEALTHY_AFTER, with_usage
from container_manager.store.transaction import Actor, Transaction, under_routing_lock

SHARED = ("attempt", "status", "host_id", "executor_type", "execution_id", "exit_code", "error")
TIMES = ("launched_at", "started_at", "finished_at")

AFRESH = {
    "status": JobStatus.PENDING,
    "host": None,
    "executor_type": "",
    "routing_reason": "",
    "message": "",
    "execution_id": "",
    "exit_code": None,
    "stop_reason": "",
    "stopped_at": None,
    "lease_owner": "",
    "lease_expires_at": None,
    **dict.fromkeys(TIMES),
}
"""What the next attempt begins with."""


def latest(job: ContainerJob, host: ExecutorHost | None) -> JobAttempt:
    """The attempt that the job itself has, on its host."""
    values = {name: getattr(job, name) for name in (*SHARED, *TIMES)}
    return JobAttempt(job_id=job.pk, host_name=host.name if host else "", **values)


def next_attempt(tx: Transaction, job: ContainerJob, why: str, delay: timedelta = timedelta()) -> None:
    """Keep the attempt that has ended, as `job` has it, and open the next one."""
    latest(job, job.host).save()
    ContainerJob.objects.filter(pk=job.pk).update(
        **AFRESH, attempt=F("attempt") + 1, error=why, not_before=timezone.now() + delay if delay else None
    )
    tx.event(EventKind.JOB_RETRIED, why, job=job, host=job.host)


@under_routing_lock
def declare_lost(tx: Transaction, items: Sequence[tuple[int, Actor | None]]) -> list[object]:
    """Hosts that will not come back: nothing is routed to them, and what they had runs again elsewhere."""
    return [_declare_lost(tx, host_id, actor) for host_id, actor in items]


def _declare_lost(tx: Transaction, host_id: int, actor: Actor | None) -> object:
    # The jobs first, as all others lock.
    rows = ContainerJob.objects.filter(host_id=host_id, status__in=list(lifecycle.ACTIVE)).order_by("pk")
    jobs = list(rows.defer("environment").select_for_update())
    host = ExecutorHost.objects.select_for_update().filter(pk=host_id).first()
    if host is None:
        return NotFound("There is no such host.")
    if host.health_status == HealthStatus.HEALTHY:
        return Conflict(
            f"Host {host.name} is HEALTHY: it has not failed {UNHEALTHY_AFTER} health checks in a row. Drain it, and "
            "its jobs will end there; or try again when it is UNHEALTHY."
        )
    if not jobs and not host.is_active:
        return with_usage(ExecutorHost.objects.filter(pk=host_id)).get()
    ExecutorHost.objects.filter(pk=host_id).update(is_active=False)
    tx.by(actor, "declareHostLost", host.name)
    why = f"Host {host.name} was declared lost."
    tx.event(EventKind.HOST_LOST, why, host=host)
    for job in jobs:
        # Whoever has claimed it can write nothing any more.
        ContainerJob.objects.filter(pk=job.pk).update(
            lease_epoch=F("lease_epoch") + 1, infrastructure_failures=F("infrastructure_failures") + 1
        )
        job.host, job.error, job.finished_at = host, why, timezone.now()
        if job.cancel_requested_at is None:
            job.status = JobStatus.FAILED
            next_attempt(tx, job, why)
            continue
        job.status, job.message, job.lease_owner, job.lease_expires_at = JobStatus.CANCELLED, "", "", None
        job.save(update_fields=["status", "error", "message", "finished_at", "lease_owner", "lease_expires_at"])
        tx.event(EventKind.JOB_CANCELLED, why, job=job, host=host)
    return with_usage(ExecutorHost.objects.filter(pk=host_id)).get()


# ------------------------------------------------------------------ reading


def of_jobs(job_ids: Iterable[int]) -> dict[int, list[JobAttempt]]:
    """The attempts of each job that another one has followed, oldest first."""
    found: dict[int, list[JobAttempt]] = {job_id: [] for job_id in job_ids}
    for attempt in JobAttempt.objects.filter(job_id__in=found).order_by("attempt"):
        found[attempt.job_id].append(attempt)
    return found


class LogCursor(NamedTuple):
    """A line's place in all that a job has written: `nth` tells lines of one nanosecond apart.

    Parts and attempts follow each other; within a part the order is the container's, mostly that of time.
    """

    attempt: int
    part: int
    at_ns: int
    nth: int


class LogLine(NamedTuple):
    """A line with its place."""

    cursor: LogCursor
    line: OutputLine


class Numbering:
    """Gives the lines of one part their cursors, in their order."""

    def __init__(self, attempt: int, part: int) -> None:
        self._last = LogCursor(attempt, part, -1, 0)

    def __call__(self, line: OutputLine) -> LogLine:
        last = self._last
        nth = last.nth + 1 if last.at_ns == line.at_ns else 0
        self._last = LogCursor(last.attempt, last.part, line.at_ns, nth)
        return LogLine(self._last, line)


class Part(NamedTuple):
    """A part of what an attempt wrote, as it is kept."""

    attempt: int
    part: int
    data: bytes

    def lines(self) -> Iterator[LogLine]:
        """Its lines with their places."""
        unpacked = zlib.decompress(self.data)
        if unpacked.startswith(b"["):
            # As older versions kept it.
            return map(Numbering(*self[:2]), (OutputLine(*line) for line in orjson.loads(unpacked)))
        return map(Numbering(*self[:2]), Output(unpacked))


def outputs(job_ids: Iterable[int]) -> dict[int, list[Part]]:
    """What is kept of each job's output, oldest first."""
    found: dict[int, list[Part]] = {job_id: [] for job_id in job_ids}
    rows = JobOutput.objects.filter(job_id__in=found).order_by("attempt", "part")
    for job_id, attempt, part, lines in rows.values_list("job_id", "attempt", "part", "lines"):
        found[job_id].append(Part(attempt, part, bytes(lines)))
    return found


def compress(output: Output) -> bytes:
    """As it is kept; nothing when there is nothing."""
    return zlib.compress(output.packed) if output else b""


def lines_after(parts: Sequence[Part], after: LogCursor | None) -> Iterator[LogLine]:
    """The lines that follow the one at `after`; those of a later time when it is not among them."""
    if after is None:
        return chain.from_iterable(part.lines() for part in parts)
    here = [part for part in parts if part[:2] == after[:2]]
    later = chain.from_iterable(part.lines() for part in parts if part[:2] > after[:2])
    for part in here:
        rest = part.lines()
        if any(line.cursor == after for line in rest):
            return chain(rest, later)
        return chain((line for line in part.lines() if line.cursor > after), later)
    return later


def page(parts: Sequence[Part], after: LogCursor | None, limit: int) -> list[LogLine]:
    """So many lines beyond `after`."""
    return list(islice(lines_after(parts, after), limit))
