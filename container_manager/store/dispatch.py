"""What workers write. Every write carries the claim's epoch: whoever lost the job changes nothing."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from django.db import connection
from django.db.models import Case, F, Q, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from django.utils import timezone

from container_manager import lifecycle
from container_manager.executors.output import Output, OutputLine
from container_manager.lifecycle import JobStatus, sources
from container_manager.models import ContainerJob, EventKind, ExecutorHost, JobOutput
from container_manager.store import bulk
from container_manager.store.attempts import SHARED, TIMES, compress, next_attempt
from container_manager.store.hosts import cool_down, count_failure, count_launch_failure, forgive
from container_manager.store.transaction import Fence, Transaction, Worker, under_routing_lock

CLAIM_AT_ONCE = 500
LONGEST_BACK_OFF = 60
IN_HAND = sorted(lifecycle.IN_HAND)
IS_IN_HAND = "status IN ({})".format(", ".join(f"'{status}'" for status in IN_HAND))
NOTES, OUTPUT = 0, 1
"""The parts of an attempt's output."""

T = TypeVar("T")
Rows = dict[int, tuple[Any, ...]]
"""New values by job: of two in one transaction the later counts."""


class LeaseLostError(Exception):
    """Somebody else owns the job now: stop, and change nothing."""


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended; its output is compressed."""

    status: JobStatus
    exit_code: int | None = None
    error: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    output: bytes = b""
    final: bool = False
    """Another attempt would end the same."""


# ------------------------------------------------------------------ leases


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
    ContainerJob.objects.filter(bulk.among("id", ids)).update(
        status=Case(When(status=JobStatus.ROUTED, then=Value(JobStatus.LAUNCHING)), default=F("status")),
        lease_owner=worker.owner,
        lease_epoch=F("lease_epoch") + 1,
        lease_expires_at=Now() + worker.lease,
    )
    jobs = list(ContainerJob.objects.filter(bulk.among("id", ids)).order_by("-priority", "pk"))
    hosts = ExecutorHost.objects.in_bulk({job.host_id for job in jobs})
    for job in jobs:
        job.host = hosts.get(job.host_id)
    return [(job, Fence(job.pk, job.lease_epoch)) for job in jobs]


class Renewed(NamedTuple):
    """Of the claims that were to be renewed: the jobs that are to be cancelled, and those that somebody else has."""

    cancelled: list[int]
    lost: list[int]


def renew(tx: Transaction, items: Sequence[tuple[Worker, Sequence[Fence]]]) -> list[Renewed]:  # noqa: ARG001
    """Lengthen the worker's leases on these jobs."""
    return [_renew(worker, fences) for worker, fences in items]


def _renew(worker: Worker, fences: Sequence[Fence]) -> Renewed:
    rows = ContainerJob.objects.filter(bulk.among("id", [fence.job_id for fence in fences]), status__in=IN_HAND)
    locked = rows.order_by("pk").select_for_update().values_list("pk", "lease_epoch", "cancel_requested_at")
    held = {Fence(pk, epoch): cancelled is not None for pk, epoch, cancelled in locked}
    mine = [fence for fence in fences if fence in held]
    ContainerJob.objects.filter(bulk.among("id", [fence.job_id for fence in mine])).update(
        lease_expires_at=Now() + worker.lease
    )
    return Renewed(
        cancelled=[fence.job_id for fence in mine if held[fence]],
        lost=[fence.job_id for fence in fences if fence not in held],
    )


def release(tx: Transaction, items: Sequence[str]) -> list[int]:  # noqa: ARG001
    """Let go of all leases of an owner, so that the next claim takes its jobs over at once. "" is everybody's."""
    return [
        ContainerJob.objects.filter(Q(lease_owner=owner) if owner else Q(), status__in=IN_HAND).update(
            lease_expires_at=Now() - timedelta(seconds=1)
        )
        for owner in items
    ]


# ------------------------------------------------------------------ a launch


def created(tx: Transaction, items: Sequence[tuple[Fence, str]]) -> list[object]:
    """The execution exists and is about to be started; from here on it may have run."""
    now = timezone.now()
    rows: Rows = {}

    def prepare(job: ContainerJob, execution_id: str) -> None:
        if job.launched_at is None:
            tx.event(EventKind.JOB_LAUNCHED, f"Attempt {job.attempt} has a container.", job=job, host=job.host)
        rows[job.pk] = (execution_id, bulk.as_moment(job.launched_at or now))

    answers = _fenced(items, prepare)
    _update({"execution_id": "text", "launched_at": "timestamptz"}, rows, "message = '', error = ''")
    return answers


def still_held(tx: Transaction, items: Sequence[tuple[Fence, None]]) -> list[object]:  # noqa: ARG001
    """Whether the claim still holds, before its owner removes something."""
    return _fenced(items, lambda *_: None)


def harvested(tx: Transaction, items: Sequence[tuple[Fence, bytes]]) -> list[object]:  # noqa: ARG001
    """What the execution wrote, kept before it is removed."""

    def keep(job: ContainerJob, output: bytes) -> None:
        JobOutput.objects.update_or_create(job_id=job.pk, attempt=job.attempt, part=OUTPUT, defaults={"lines": output})

    return _fenced(items, keep)


def started(tx: Transaction, items: Sequence[tuple[Fence, datetime]]) -> list[object]:
    """The execution runs."""
    rows: Rows = {}
    hosts = set()

    def prepare(job: ContainerJob, at: datetime) -> None:
        if job.status != JobStatus.RUNNING:
            tx.event(EventKind.JOB_STARTED, f"Attempt {job.attempt} runs.", job=job, host=job.host)
            rows[job.pk] = (bulk.as_moment(at),)
            hosts.add(job.host_id)

    answers = _fenced(items, prepare)
    _update({"started_at": "timestamptz"}, rows, f"status = '{JobStatus.RUNNING}', message = ''")
    forgive(hosts)
    return answers


@dataclass(frozen=True, slots=True)
class Progress:
    """What is going on, for people; `notes` are all lines that we have to add to the attempt's output so far."""

    message: str
    notes: Sequence[OutputLine] = ()


def progress(tx: Transaction, items: Sequence[tuple[Fence, Progress]]) -> list[object]:
    """Tell how a launch that takes its time gets on."""
    rows: Rows = {}

    def prepare(job: ContainerJob, told: Progress) -> None:
        rows[job.pk] = (told.message,)
        if told.message:
            tx.event(EventKind.JOB_PROGRESS, told.message, job=job, host=job.host)
        if told.notes:
            JobOutput.objects.update_or_create(
                job_id=job.pk, attempt=job.attempt, part=NOTES, defaults={"lines": compress(Output.of(told.notes))}
            )

    answers = _fenced(items, prepare)
    _update({"message": "text"}, rows)
    return answers


def stopping(tx: Transaction, items: Sequence[tuple[Fence, JobStatus]]) -> list[object]:  # noqa: ARG001
    """The execution is about to be stopped, and as what the job is to end; the first reason stands."""
    now = timezone.now()
    rows: Rows = {}

    def prepare(job: ContainerJob, reason: JobStatus) -> None:
        if not job.stop_reason:
            rows.setdefault(job.pk, (str(reason), bulk.as_moment(now)))

    answers = _fenced(items, prepare)
    _update({"stop_reason": "text", "stopped_at": "timestamptz"}, rows)
    return answers


# ------------------------------------------------------------------ its end


def finished(tx: Transaction, items: Sequence[tuple[Fence, End]]) -> list[object]:
    """The attempt has ended; its room is free with this commit. A failure with attempts left opens the next one."""
    ended: list[tuple[ContainerJob, End]] = []
    answers = _fenced(items, lambda job, end: ended.append((job, end)))
    _finish(tx, ended)
    for job, end in ended:
        own = job.attempt - job.infrastructure_failures
        failed = end.status in {JobStatus.FAILED, JobStatus.TIMED_OUT} and not end.final
        if failed and own < job.max_attempts and not job.cancel_requested_at:
            next_attempt(tx, job, f"Attempt {own} of {job.max_attempts} ended {end.status.upper()}.", _back_off(own))
    return answers


def _back_off(failures: int) -> timedelta:
    return timedelta(seconds=min(2.0 ** min(failures - 1, 10), LONGEST_BACK_OFF))


def _finish(tx: Transaction, ended: Sequence[tuple[ContainerJob, End]]) -> None:
    now = timezone.now()
    for job, end in ended:
        if job.status not in sources(end.status):
            raise RuntimeError(f"a job that is {job.status} cannot become {end.status}")
        job.status, job.exit_code, job.error = end.status, end.exit_code, end.error
        job.started_at, job.finished_at = end.started_at or job.started_at, end.finished_at or now
        job.finished_at = max(job.finished_at, job.started_at or job.finished_at)
        kind = EventKind.JOB_CANCELLED if end.status == JobStatus.CANCELLED else EventKind.JOB_FINISHED
        tx.event(kind, end.error or f"{end.status.upper()}, exit code {end.exit_code}", job=job, host=job.host)
    times = {"started_at": "timestamptz", "finished_at": "timestamptz"}
    rows: Rows = {
        job.pk: (str(job.status), job.exit_code, job.error, *(bulk.as_moment(getattr(job, name)) for name in times))
        for job, _ in ended
    }
    columns = {"status": "text", "exit_code": "integer", "error": "text", **times}
    _update(columns, rows, "lease_owner = '', lease_expires_at = NULL, message = ''")
    _keep_output(tx, ended)


def _keep_output(tx: Transaction, ended: Sequence[tuple[ContainerJob, End]]) -> None:
    rows = [(job.pk, job.attempt, OUTPUT, end.output) for job, end in ended if end.output]
    tx.rows.append(bulk.Rows(JobOutput, ("job_id", "attempt", "part", "lines"), rows))


@dataclass(frozen=True, slots=True)
class HostFault:
    """The host failed a job, before it ran or by ending what ran.

    `retries` None: the host did not even answer, which is counted like a failed probe, and the job is retried for ever.
    `end` is what became of an execution that was started. `exhausted`: all that was wrong is that a quota is used up.
    `wrong`: the host's own settings are, or what it may do.
    """

    error: str
    retries: int | None
    end: End | None = None
    exhausted: bool = False
    wrong: bool = False


@under_routing_lock
def host_failed(tx: Transaction, items: Sequence[tuple[Fence, HostFault]]) -> list[object]:
    """Route the job anew, with back-off, as often as the fault allows; then it has FAILED."""
    return _fenced(items, lambda job, fault: _host_failed(tx, job, fault))


def _host_failed(tx: Transaction, job: ContainerJob, fault: HostFault) -> None:
    job.infrastructure_failures += 1
    job.answered_failures += fault.retries is not None
    ContainerJob.objects.filter(pk=job.pk).update(
        infrastructure_failures=job.infrastructure_failures, answered_failures=job.answered_failures
    )
    if job.cancel_requested_at:
        end = fault.end or End(JobStatus.CANCELLED, error=fault.error)
        _finish(tx, [(job, replace(end, status=JobStatus.CANCELLED))])
        return
    if job.host is not None:
        _blame(tx, job.host, fault)
    end = fault.end or End(JobStatus.FAILED, error=fault.error)
    if fault.retries is not None and job.answered_failures > fault.retries:
        _finish(tx, [(job, end)])
        return
    _keep_output(tx, [(job, end)])
    job.status, job.exit_code, job.error = JobStatus.FAILED, end.exit_code, fault.error
    job.finished_at = end.finished_at or timezone.now()
    # Another host may have room at once; the one whose quota is used up is left alone by routing.
    next_attempt(tx, job, fault.error, timedelta() if fault.exhausted else _back_off(job.infrastructure_failures))


def _blame(tx: Transaction, host: ExecutorHost, fault: HostFault) -> None:
    if fault.exhausted:
        cool_down(tx, host, fault.error)
        return
    if fault.end is None or fault.end.started_at is None:
        count_launch_failure(tx, host, fault.error, fault.wrong)
    if fault.retries is None:
        count_failure(tx, host, fault.error)


# ------------------------------------------------------------------ what all of them share


def _fenced(items: Sequence[tuple[Fence, T]], do: Callable[[ContainerJob, T], object]) -> list[object]:
    """Have each claim that still holds done; the answers of the others are LeaseLostError."""
    held = {(job.pk, job.lease_epoch): job for job in _held([fence.job_id for fence, _ in items])}
    answers: list[object] = []
    for fence, item in items:
        job = held.get(fence)
        # The claims of one transaction may follow each other on one job.
        if job is None or job.status not in lifecycle.IN_HAND:
            answers.append(LeaseLostError())
            continue
        do(job, item)
        answers.append(None)
    return answers


def _held(ids: Sequence[int]) -> Iterable[ContainerJob]:
    """Jobs that somebody has claimed, locked against other writers, in an order that does not deadlock."""
    rows = ContainerJob.objects.filter(_among(ids), status__in=IN_HAND).order_by("pk").only(*_READ)
    return rows.select_related("host").select_for_update(of=("self",))


# A transition needs no more of a job; its environment would have to be decrypted.
_READ = (
    *SHARED,
    *TIMES,
    "lease_epoch",
    "max_attempts",
    "infrastructure_failures",
    "answered_failures",
    "cancel_requested_at",
    "stop_reason",
    "host__name",
    "host__executor_type",
)


def _among(ids: Sequence[int]) -> Q | RawSQL:
    return Q(pk=ids[0]) if len(ids) == 1 else bulk.among("container_manager_containerjob.id", ids)


def _update(columns: dict[str, str], rows: Rows, fixed: str = "") -> None:
    bulk.update(ContainerJob, fixed, columns, [(pk, *values) for pk, values in rows.items()], where=IS_IN_HAND)
