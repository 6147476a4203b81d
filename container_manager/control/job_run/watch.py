"""Watching an execution until it has ended, and stopping it when the job is cancelled or out of time."""

import time
from dataclasses import replace

from container_manager import configuration
from container_manager.aio import background
from container_manager.control.job_run.attempt import Attempt
from container_manager.domain.lifecycle import JobStatus
from container_manager.executors.base import ContainerExecutor, Execution, ExecutionState, ExecutionStatus
from container_manager.executors.exceptions import ExecutorOperationError
from container_manager.store import transitions
from container_manager.store.transitions import Progress


async def watch_start(attempt: Attempt, executor: ContainerExecutor, execution: Execution) -> ExecutionStatus | None:
    """Wait until the execution runs. One that does not start in time counts as a fault of its host.

    Returns the next status; None when the execution is gone.
    """
    message = f"Host {attempt.host_name} has taken the job and is starting its container."
    await attempt.write(transitions.progress, Progress(message))
    return await watch(attempt, executor, execution, ExecutionState.STARTING)


async def watch(
    attempt: Attempt, executor: ContainerExecutor, execution: Execution, seen: ExecutionState
) -> ExecutionStatus | None:
    """Wait until the execution has left the state `seen`; stop it when the job is cancelled or out of time.

    Returns the next status; None when the execution is gone.

    Raises:
        ExecutorError: the host does not answer, or the execution runs although it was stopped.
    """
    cancelled = attempt.cancel_requested
    async with background(executor.wait(execution, seen)) as changed:
        while not changed.done():
            left = time_left(attempt)
            if not left and not cancelled.done() and seen is ExecutionState.STARTING:
                return await _give_up_starting(attempt, executor, execution)
            if not left or cancelled.done():
                reason = JobStatus.CANCELLED if cancelled.done() else JobStatus.TIMED_OUT
                return await _stop(attempt, executor, execution, reason)
            await attempt.cancelled_or(changed, left)
        return changed.result()


def time_left(attempt: Attempt) -> float:
    """Seconds until the job's timeout, or until the execution must have started; 0 when the time is over."""
    running = attempt.started_at is not None
    most = attempt.job.timeout_seconds if running else configuration.current().pull_timeout_seconds
    return max(attempt.began + most - time.monotonic(), 0)


async def _give_up_starting(
    attempt: Attempt, executor: ContainerExecutor, execution: Execution
) -> ExecutionStatus | None:
    """Stop an execution that has not started in time; the job did not cause this end."""
    status = await executor.status(execution)
    if status is None or status.state is not ExecutionState.STARTING:
        return status
    stopped = await executor.stop(execution, 0)
    status = await executor.status(execution)
    if status is None or not stopped:
        return status
    seconds = configuration.current().pull_timeout_seconds
    why = f"Host {attempt.host_name} did not start the container within {seconds:g} s."
    return replace(status, interrupted=True, error=why)


async def _stop(
    attempt: Attempt, executor: ContainerExecutor, execution: Execution, reason: JobStatus
) -> ExecutionStatus | None:
    first = attempt.stop is None
    if first:
        await attempt.begin_stop(reason)
    stopped = await executor.stop(execution, configuration.current().stop_grace_seconds)
    # If an earlier stop may have sent a signal, it is not certain that the execution had ended without one.
    attempt.confirm_stop(stopped or (False if first else None))
    status = await executor.status(execution)
    if status is not None and status.state is not ExecutionState.EXITED:
        raise ExecutorOperationError(f"host {attempt.host_name}: {attempt.spec.name} runs although it was stopped.")
    return status
