"""What Cloud Run's answers say about an execution. Google's libraries are imported for type checking only."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from container_manager.executors.base import ExecutionState, ExecutionStatus

if TYPE_CHECKING:
    from google.cloud import run_v2

DEADLINE_EXCEEDED = 4
KILLED = 128
OUT_OF_MEMORY = re.compile(r"out.of.memory|memory limit", re.IGNORECASE)


def status_of_execution(job_id: str, found: "run_v2.Execution", task: "run_v2.Task | None") -> ExecutionStatus:
    """The status of a job's execution. `task`: its task, which has the exit code of one that failed by itself."""
    state = state_of(found)
    status = ExecutionStatus(job_id, state, started_at=_time(found.start_time))
    if state is not ExecutionState.EXITED:
        return status
    status = replace(status, finished_at=_time(found.completion_time))
    if is_success(found):
        return replace(status, exit_code=0)
    reason = _reason(found)
    never_ran = replace(status, interrupted=True, error=f"It ended before it was started: {reason}")
    if is_cancelled(found):
        cancelled = replace(status, error="It was cancelled in Cloud Run, and not by this service.")
        return replace(cancelled if found.start_time else never_ran, cancelled=True)
    result = task.last_attempt_result if task is not None else None
    if result is None or not (result.exit_code or result.term_signal or result.status.code):
        return replace(status, error=reason) if found.start_time else never_ran
    return replace(
        status,
        # 0 also means that no exit code was set.
        exit_code=result.exit_code or (KILLED + result.term_signal if result.term_signal else None),
        timed_out=result.status.code == DEADLINE_EXCEEDED,
        out_of_memory=bool(OUT_OF_MEMORY.search(f"{reason} {result.status.message}")),
        error="" if result.exit_code or result.term_signal else reason,
    )


def job_id_of(execution: "run_v2.Execution") -> str:
    """The id of the Cloud Run job to which an execution belongs."""
    return execution.job.rsplit("/", 1)[-1] or execution.name.rsplit("/executions/", 1)[0].rsplit("/", 1)[-1]


def state_of(execution: "run_v2.Execution") -> ExecutionState:
    """Where an execution is in its life."""
    if execution.completion_time:
        return ExecutionState.EXITED
    runs = execution.start_time or execution.running_count
    return ExecutionState.RUNNING if runs else ExecutionState.STARTING


def is_success(execution: "run_v2.Execution") -> bool:
    """Whether an execution that has ended has succeeded."""
    return any(condition.state.name == "CONDITION_SUCCEEDED" for condition in _completed(execution)[:1])


def is_cancelled(execution: "run_v2.Execution") -> bool:
    """Whether an execution was ended by a cancellation, of this service or of another client."""
    reasons = {condition.execution_reason.name for condition in _completed(execution)}
    return "CANCELLED" in reasons or bool(execution.cancelled_count)


def _completed(execution: "run_v2.Execution") -> list["run_v2.Condition"]:
    return [condition for condition in execution.conditions if condition.type_ == "Completed"]


def _reason(execution: "run_v2.Execution") -> str:
    message = next((condition.message for condition in _completed(execution)), "")
    return message or "Cloud Run gives no reason."


def _time(at: datetime | None) -> datetime | None:
    # The library's own subclass of datetime must not be stored.
    return None if at is None else datetime.fromtimestamp(at.timestamp(), UTC)
