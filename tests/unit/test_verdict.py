"""The verdict on an attempt, as a table of what was seen."""

from datetime import UTC, datetime, timedelta

import pytest

from container_manager.control.job_run.verdict import VANISHED, Stop, judge, stopped_as
from container_manager.domain.lifecycle import JobStatus
from container_manager.executors.base import ExecutionState, ExecutionStatus

T0 = datetime(2026, 1, 1, tzinfo=UTC)
ENDED_AT = T0 + timedelta(seconds=10)
CANCELLED, TIMED_OUT = JobStatus.CANCELLED, JobStatus.TIMED_OUT


def ended(exit_code: int | None, **more: object) -> ExecutionStatus:
    return ExecutionStatus("id", ExecutionState.EXITED, exit_code, T0, ENDED_AT, **more)


def stop(reason: JobStatus, confirmed: bool | None, *, later: bool = False) -> Stop:
    """A stop that began before the end, or after it by the clock."""
    return Stop(reason, ENDED_AT + timedelta(seconds=5 if later else -5), confirmed)


@pytest.mark.parametrize(
    ("status", "stopped", "verdict", "error"),
    [
        # Ends of the job's own.
        (ended(0), None, "succeeded", ""),
        (ended(3), None, "failed", ""),
        (ended(137), None, "failed", ""),
        (ended(137, out_of_memory=True), None, "failed", "It used more memory than its limit."),
        (ended(137, out_of_memory=True, error="killed"), None, "failed", "killed"),
        (ended(0, error="the engine says why"), None, "failed", "the engine says why"),
        (ended(None), None, "failed", ""),
        # The executor enforced the timeout itself.
        (ended(None, timed_out=True), None, "timed_out", "timeout of 60 s"),
        # The executor says that this service's stop ended it, whatever the exit code.
        (ended(0), stop(CANCELLED, True), "cancelled", ""),
        (ended(3), stop(CANCELLED, True), "cancelled", ""),
        (ended(143), stop(TIMED_OUT, True), "timed_out", "timeout of 60 s"),
        # The executor says that it had ended before.
        (ended(0), stop(CANCELLED, False), "succeeded", ""),
        (ended(137), stop(CANCELLED, False), "failed", ""),
        (ended(3), stop(TIMED_OUT, False), "failed", ""),
        # No answer: an end by a signal, or after the stop had begun, counts as ours.
        (ended(143), stop(CANCELLED, None, later=True), "cancelled", ""),
        (ended(137), stop(TIMED_OUT, None, later=True), "timed_out", "timeout of 60 s"),
        (ended(0), stop(CANCELLED, None), "cancelled", ""),
        (ended(3), stop(CANCELLED, None, later=True), "failed", ""),
        (ended(0), stop(CANCELLED, None, later=True), "succeeded", ""),
        (ended(137, out_of_memory=True), stop(CANCELLED, None, later=True), "failed", "It used more memory"),
        (ended(None, cancelled=True), stop(CANCELLED, None, later=True), "cancelled", ""),
    ],
)
def test_the_verdict_follows_from_what_was_seen(
    status: ExecutionStatus, stopped: Stop | None, verdict: str, error: str
) -> None:
    end = judge(status, stopped, cancel_requested=stopped is not None, timeout_seconds=60)
    assert end.status == verdict
    assert error in end.error
    assert bool(end.error) == bool(error)
    assert (end.exit_code, end.started_at, end.finished_at) == (status.exit_code, T0, ENDED_AT)


@pytest.mark.parametrize(
    ("cancel_requested", "verdict", "error"), [(False, "failed", VANISHED), (True, "cancelled", "")]
)
def test_an_execution_that_is_gone(cancel_requested: bool, verdict: str, error: str) -> None:
    end = judge(None, None, cancel_requested=cancel_requested, timeout_seconds=60)
    assert (end.status, end.error, end.exit_code) == (verdict, error, None)


def test_without_a_stop_nothing_was_stopped() -> None:
    assert stopped_as(ended(143), None) is None
