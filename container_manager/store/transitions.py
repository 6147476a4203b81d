"""What workers write about their attempts. Each write names its claim, so that a lost claim changes nothing."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from django.db.models import F
from django.db.models.expressions import RawSQL

from container_manager import clock, configuration
from container_manager.database import ALIAS
from container_manager.domain import lifecycle, retry
from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import JobStatus, sources
from container_manager.domain.outcome import End, FailureReason, HostFault
from container_manager.executors.output import Output, OutputLine
from container_manager.models import ContainerJob, ExecutorHost, JobOutput
from container_manager.routing import router
from container_manager.routing.types import Verdict
from container_manager.store import attempts, bulk, health, pending
from container_manager.store.fleet import states
from container_manager.store.outputs import NOTES, OUTPUT, compress
from container_manager.store.transaction import Fence, Transaction, under_routing_lock

IS_CLAIMED = "status IN ({})".format(", ".join(f"'{status}'" for status in sorted(lifecycle.CLAIMED)))

T = TypeVar("T")
Rows = dict[int, tuple[Any, ...]]
"""New values by job id; of two writes in one transaction the later one counts."""


class LeaseLostError(Exception):
    """Another worker holds the job now: stop, and change nothing."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a launch is doing. `notes` are all lines that this service adds to the attempt's output so far."""

    message: str
    notes: Sequence[OutputLine] = ()


# ------------------------------------------------------------------ a launch


def created(tx: Transaction, items: Sequence[tuple[Fence, str]]) -> list[object]:
    """The execution exists and is about to be started: from this commit on it may have run."""
    now = clock.now()
    rows: Rows = {}

    def prepare(job: ContainerJob, execution_id: str) -> None:
        if job.launched_at is None:
            tx.event(EventKind.JOB_LAUNCHED, f"Attempt {job.attempt} has a container.", job=job, host=job.host)
        rows[job.pk] = (execution_id, bulk.as_moment(job.launched_at or now))

    answers = _for_held(items, prepare)
    _update({"execution_id": "text", "launched_at": "timestamptz"}, rows, "message = '', error = ''")
    return answers


def check_claim(tx: Transaction, items: Sequence[tuple[Fence, None]]) -> list[object]:  # noqa: ARG001
    """Change nothing; the answer is LeaseLostError if the claim is lost. Used before its owner removes an execution."""
    return _for_held(items, lambda *_: None)


def started(tx: Transaction, items: Sequence[tuple[Fence, datetime]]) -> list[object]:
    """The execution runs since this time."""
    rows: Rows = {}
    hosts = set()

    def prepare(job: ContainerJob, at: datetime) -> None:
        if job.status != JobStatus.RUNNING:
            tx.event(EventKind.JOB_STARTED, f"Attempt {job.attempt} runs.", job=job, host=job.host)
            rows[job.pk] = (bulk.as_moment(at),)
            if any(getattr(job, name) for name in _FAULTS):
                hosts.add(job.host_id)

    answers = _for_held(items, prepare)
    _update({"started_at": "timestamptz"}, rows, f"status = '{JobStatus.RUNNING}', message = ''")
    if hosts:
        health.reset_launch_failures(hosts)
    return answers


def progress(tx: Transaction, items: Sequence[tuple[Fence, Progress]]) -> list[object]:
    """Say what a launch that takes long is doing."""
    rows: Rows = {}

    def prepare(job: ContainerJob, news: Progress) -> None:
        rows[job.pk] = (news.message,)
        if news.message:
            tx.event(EventKind.JOB_PROGRESS, news.message, job=job, host=job.host)
        if news.notes:
            _store_output(job, NOTES, compress(Output.of(news.notes)))

    answers = _for_held(items, prepare)
    _update({"message": "text"}, rows)
    return answers


def stopping(tx: Transaction, items: Sequence[tuple[Fence, JobStatus]]) -> list[object]:  # noqa: ARG001
    """The execution is about to be stopped, and the job will end with this status. The first reason stays."""
    now = clock.now()
    rows: Rows = {}

    def prepare(job: ContainerJob, reason: JobStatus) -> None:
        if not job.stop_reason:
            rows.setdefault(job.pk, (str(reason), bulk.as_moment(now)))

    answers = _for_held(items, prepare)
    _update({"stop_reason": "text", "stopped_at": "timestamptz"}, rows)
    return answers


def output_read(tx: Transaction, items: Sequence[tuple[Fence, bytes]]) -> list[object]:  # noqa: ARG001
    """Store the execution's compressed output before the execution is removed."""
    return _for_held(items, lambda job, output: _store_output(job, OUTPUT, output))


def _store_output(job: ContainerJob, part: int, lines: bytes) -> None:
    JobOutput.objects.update_or_create(job_id=job.pk, attempt=job.attempt, part=part, defaults={"lines": lines})


# ------------------------------------------------------------------ the end of an attempt


def finished(tx: Transaction, items: Sequence[tuple[Fence, End]]) -> list[object]:
    """The attempt has ended; its room is free with this commit. A failed job with attempts left gets the next one."""
    ended: list[tuple[ContainerJob, End]] = []
    answers = _for_held(items, lambda job, end: ended.append((job, end)))
    _finish(tx, ended)
    for job, end in ended:
        failed = end.status in {JobStatus.FAILED, JobStatus.TIMED_OUT} and not end.final
        faults = job.infrastructure_failures
        delay = retry.after_own_failure(job.attempt, faults, job.max_attempts) if failed else None
        if delay is not None and not job.cancel_requested_at:
            number = retry.own_attempts(job.attempt, faults)
            why = f"Attempt {number} of {job.max_attempts} ended {end.status.upper()}."
            attempts.open_next(tx, job, why, delay)
    return answers


def _finish(tx: Transaction, ended: Sequence[tuple[ContainerJob, End]]) -> None:
    now = clock.now()
    for job, end in ended:
        if job.status not in sources(end.status):
            raise RuntimeError(f"a job that is {job.status} cannot become {end.status}")
        job.status, job.exit_code, job.error, job.failure = end.status, end.exit_code, end.error, end.failure
        job.started_at, job.finished_at = end.started_at or job.started_at, end.finished_at or now
        job.finished_at = max(job.finished_at, job.started_at or job.finished_at)
        kind = EventKind.JOB_CANCELLED if end.status == JobStatus.CANCELLED else EventKind.JOB_FINISHED
        tx.event(kind, end.error or f"{end.status.upper()}, exit code {end.exit_code}", job=job, host=job.host)
    times = {"started_at": "timestamptz", "finished_at": "timestamptz"}
    rows: Rows = {
        job.pk: (
            str(job.status),
            job.exit_code,
            job.error,
            job.failure,
            *(bulk.as_moment(getattr(job, name)) for name in times),
        )
        for job, _ in ended
    }
    columns = {"status": "text", "exit_code": "integer", "error": "text", "failure": "text", **times}
    _update(columns, rows, "lease_owner = '', lease_expires_at = NULL, message = ''")
    _insert_output(tx, ended)


def _insert_output(tx: Transaction, ended: Sequence[tuple[ContainerJob, End]]) -> None:
    rows = [(job.pk, job.attempt, OUTPUT, end.output) for job, end in ended if end.output]
    # It may be there already, read by a run that failed before the end was committed.
    newer = "ON CONFLICT (job_id, attempt, part) DO UPDATE SET lines = excluded.lines"
    tx.rows.append(bulk.Rows(JobOutput, ("job_id", "attempt", "part", "lines"), rows, newer))


@under_routing_lock
def host_failed(tx: Transaction, items: Sequence[tuple[Fence, HostFault]]) -> list[object]:
    """Route the job again after a back-off, as often as the fault allows; then the job has FAILED."""
    return _for_held(items, lambda job, fault: _host_failed(tx, job, fault))


def _host_failed(tx: Transaction, job: ContainerJob, fault: HostFault) -> None:
    if fault.lacking and job.host_id in job.unfit_hosts:
        # A process of an earlier version has routed it, which does not know that the host lacks something.
        fault = replace(fault, retries=configuration.current().infrastructure_retries)
    job.infrastructure_failures += 1
    job.answered_failures += fault.retries is not None
    ContainerJob.objects.filter(pk=job.pk).update(
        infrastructure_failures=job.infrastructure_failures, answered_failures=job.answered_failures
    )
    end = replace(fault.end, reason=FailureReason.HOST_FAULT) if fault.end else End(JobStatus.FAILED, error=fault.error)
    if job.cancel_requested_at:
        _finish(tx, [(job, replace(end, status=JobStatus.CANCELLED))])
        return
    if job.host is not None:
        _count_fault(tx, job.host, fault)
    elsewhere = _avoid(job, fault)
    delay = retry.after_host_fault(
        job.infrastructure_failures,
        job.answered_failures,
        fault.retries,
        at_once=fault.retries is None and (fault.exhausted or fault.lacking),
    )
    if delay is None or (fault.lacking and not elsewhere):
        _finish(tx, [(job, end)])
        return
    _insert_output(tx, [(job, end)])
    job.status, job.exit_code, job.error, job.failure = JobStatus.FAILED, end.exit_code, fault.error, end.failure
    job.finished_at = end.finished_at or clock.now()
    attempts.open_next(tx, job, fault.error, delay)


def _avoid(job: ContainerJob, fault: HostFault) -> bool:
    """Let routing avoid the host for this job from now on; returns whether another host could ever take it."""
    if job.host_id is None or fault.exhausted:
        return True
    # All that routing reads of the job, which the claimed row does not have.
    row = ContainerJob.objects.defer("environment").get(pk=job.pk)
    names = ("failed_hosts", "unfit_hosts") if fault.lacking else ("failed_hosts",)
    lists = {name: [*(pk for pk in getattr(row, name) if pk != job.host_id), job.host_id] for name in names}
    pending.reclassify(row, **lists)
    if not fault.lacking:
        return True
    in_service = [host for host in states() if host.is_active and not host.is_draining]
    return router.evaluate(in_service, row.requirements()).verdict() is not Verdict.NEVER and bool(in_service)


def _count_fault(tx: Transaction, host: ExecutorHost, fault: HostFault) -> None:
    if fault.exhausted:
        health.cool_down(tx, host, fault.error)
        return
    if fault.end is None or fault.end.started_at is None:
        health.count_failed_launch(tx, host, fault.error, ejects=fault.ejects, shown=fault.shown)
    if fault.retries is None and not fault.lacking:
        health.count_unanswered_launch(tx, host, fault.error)


# ------------------------------------------------------------------ shared by all of them


def _for_held(items: Sequence[tuple[Fence, T]], do: Callable[[ContainerJob, T], object]) -> list[object]:
    """Call `do` for each claim that still holds and answer None; the answer of the others is LeaseLostError."""
    held = {(job.pk, job.lease_epoch): job for job in _claimed([fence.job_id for fence, _ in items])}
    answers: list[object] = []
    for fence, item in items:
        job = held.get(fence)
        # An earlier item of the same transaction may have ended the job.
        if job is None or job.status not in lifecycle.CLAIMED:
            answers.append(LeaseLostError())
            continue
        do(job, item)
        answers.append(None)
    return answers


def _claimed(ids: Sequence[int]) -> Iterable[ContainerJob]:
    """Jobs with a claim, locked in the order of their ids (the global lock order)."""
    hosts: dict[int, ExecutorHost] = {}
    sql, parameters, at = _claimed_query()
    job: Any
    for job in ContainerJob.objects.raw(sql, [*parameters[:at], _condition(ids).params[0], *parameters[at + 1 :]]):
        if job.host_id is not None:
            if job.host_id not in hosts:
                hosts[job.host_id] = ExecutorHost.from_db(
                    ALIAS, ("id", "name", "executor_type"), (job.host_id, job.host_label, job.host_kind)
                )
            job.host = hosts[job.host_id]
        yield job


@cache
def _claimed_query() -> tuple[str, tuple[Any, ...], int]:
    """The query with its parameters, and the index of the parameter with the ids.

    Kept, because Django takes longer to build the query than the database to run it.
    """
    rows = ContainerJob.objects.filter(_condition([-1]), status__in=lifecycle.CLAIMED).order_by("pk").only(*_READ)
    named = rows.annotate(host_label=F("host__name"), host_kind=F("host__executor_type"), **_FAULTS)
    sql, parameters = named.select_for_update(of=("self",)).query.get_compiler(ALIAS).as_sql()
    return sql, parameters, parameters.index(_condition([-1]).params[0])


def _condition(ids: Sequence[int]) -> RawSQL:
    return bulk.id_in("container_manager_containerjob.id", ids)


_FAULTS = {
    f"host_{name}": F(f"host__{name}") for name in ("launch_failures", "ejections", "launch_error", "cooldown_until")
}
"""What a launch that succeeds resets on its host."""

# A transition needs no more of a job; reading the environment would decrypt it.
_READ = (
    *attempts.SHARED_FIELDS,
    *attempts.TIME_FIELDS,
    "lease_epoch",
    "max_attempts",
    "queue_timeout_seconds",
    "infrastructure_failures",
    "answered_failures",
    "cancel_requested_at",
    "stop_reason",
    "unfit_hosts",
)


def _update(columns: dict[str, str], rows: Rows, fixed: str = "") -> None:
    bulk.update(ContainerJob, fixed, columns, [(pk, *values) for pk, values in rows.items()], where=IS_CLAIMED)
