"""How an attempt ended, judged from what was seen. Pure: the same observations give the same verdict."""

from dataclasses import dataclass, replace
from datetime import datetime

from container_manager.domain.lifecycle import JobStatus
from container_manager.domain.outcome import End, FailureReason
from container_manager.executors.base import ExecutionStatus

ENDED_BY_SIGNAL = {137, 143}
"""The exit codes of a process that KILL or TERM has ended."""

VANISHED = "The container is gone from its host; what became of it is unknown."


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop by this service: with which status the job is to end, and since when it is being stopped.

    `confirmed`: True if the executor says that the stop ended the execution, False if it had ended before, None if that
    is unknown.
    """

    reason: JobStatus
    since: datetime
    confirmed: bool | None = None


def stopped_as(status: ExecutionStatus, stop: Stop | None) -> JobStatus | None:
    """The status for an execution that this service has stopped; None when it ended in another way.

    The executor's answer decides. If there was none, an end by a signal or after the stop had begun counts as ours.
    """
    if stop is None or stop.confirmed is False:
        return None
    if stop.confirmed or status.cancelled:
        return stop.reason
    if status.exit_code in ENDED_BY_SIGNAL and not status.out_of_memory:
        return stop.reason
    ended_after_stop = status.finished_at is not None and status.finished_at >= stop.since
    return stop.reason if ended_after_stop else None


def judge(status: ExecutionStatus | None, stop: Stop | None, *, cancel_requested: bool, timeout_seconds: int) -> End:
    """The end of an attempt. An end that this service did not cause stands, whatever it was about to do.

    `status`: the last state of the execution; None when it is gone from its host.
    """
    if status is None:
        # CANCELLED means that there is no container any more, which is the case.
        vanished = End(JobStatus.FAILED, error=VANISHED, reason=FailureReason.VANISHED)
        return End(JobStatus.CANCELLED) if cancel_requested else vanished
    end = End(JobStatus.FAILED, status.exit_code, status.error, status.started_at, status.finished_at)
    stopped = stopped_as(status, stop) or (JobStatus.TIMED_OUT if status.timed_out else None)
    if stopped is JobStatus.TIMED_OUT:
        error = f"The job ran longer than its timeout of {timeout_seconds} s and was stopped."
        return replace(end, status=stopped, error=error)
    if stopped is not None:
        return replace(end, status=stopped, error="")
    if status.exit_code == 0 and not status.error:
        return replace(end, status=JobStatus.SUCCEEDED)
    if status.out_of_memory:
        error = status.error or "It used more memory than its limit."
        return replace(end, error=error, reason=FailureReason.OUT_OF_MEMORY)
    return end
