"""Bringing an attempt's execution to life: adopt or create it, then start it."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from container_manager import clock, configuration
from container_manager.aio import Slots, background
from container_manager.control.job_run.attempt import Attempt
from container_manager.domain.lifecycle import JobStatus
from container_manager.domain.outcome import End, HostFault
from container_manager.executors.base import ContainerExecutor, Execution, ExecutionState, ExecutionStatus
from container_manager.executors.exceptions import (
    ExecutorAuthenticationError,
    ExecutorClosedError,
    ExecutorConfigurationError,
    ExecutorError,
    ExecutorOperationError,
    ExecutorResourceError,
)
from container_manager.store import hosts as host_store
from container_manager.store import threads, transitions
from container_manager.store.transitions import Progress

T = TypeVar("T")

PROGRESS_EVERY = 2.0
"""Seconds between two reports of the progress of a launch."""

LEFTOVER_LOOKS, LEFTOVER_PAUSE = 10, 0.1


class NotStartedError(Exception):
    """The host failed the attempt, and it is certain that nothing has run."""

    def __init__(self, error: ExecutorError) -> None:
        super().__init__(str(error))
        self.error = error


async def launch(attempt: Attempt, executor: ContainerExecutor, slots: Slots) -> ExecutionStatus | None:
    """Bring the execution to where it runs or has run; returns None when the attempt has ended instead.

    `slots` limits the launches of the host. Adopting and stopping do not wait for one. Only an execution whose id is
    committed is adopted.

    Raises:
        NotStartedError: the host failed the attempt before it ran.
        ExecutorConfigurationError, ExecutorAuthenticationError: the launch can never succeed as it is.
        ExecutorError: what became of the execution is unknown.
    """
    found = await _take_up(attempt, executor)
    if found is not None or attempt.ended:
        return found
    if executor.prepares:
        ready = await _in_progress(attempt, executor.prepare(attempt.spec, attempt.progress.report))
        if not ready:
            await attempt.end(End(JobStatus.CANCELLED))
            return None
    async with _launch_slot(attempt, slots) as has_slot:
        if not has_slot:
            await attempt.end(End(JobStatus.CANCELLED))
            return None
        await _check_quota(attempt, executor)
        return await _create_and_start(attempt, executor)


async def _take_up(attempt: Attempt, executor: ContainerExecutor) -> ExecutionStatus | None:
    """What an earlier claim of the attempt has started; None when nothing was, or when the attempt has ended."""
    if attempt.execution is None:
        await _remove_uncommitted(attempt, executor)
        return None
    if attempt.may_exist:
        await executor.recall(attempt.execution)
    found = await executor.status(attempt.execution)
    if found is not None and found.state is ExecutionState.CREATED and attempt.start_sent:
        # A start that was sent may still take effect.
        await asyncio.sleep(executor.settle_seconds)
        found = await executor.status(attempt.execution)
    if found is not None and found.state is not ExecutionState.CREATED:
        return found
    if found is not None:
        # Remove it instead of starting it, so that a late start by the worker that created it cannot run it.
        await _remove_created(attempt, executor, found.id)
    if attempt.started_at is not None:
        await attempt.end(attempt.judge(None))
    elif not attempt.start_sent or await _has_not_run(attempt, executor, attempt.execution):
        attempt.execution = None
    return None


@asynccontextmanager
async def _launch_slot(attempt: Attempt, slots: Slots) -> AsyncIterator[bool]:
    """Hold one of the host's launch slots; yields False when the job is cancelled before there is one."""
    if slots.locked():
        message = f"Waits for its turn: host {attempt.host_name} starts at most {slots.count} containers at once."
        await attempt.write(transitions.progress, Progress(message))
    turn = slots.turn(attempt.job.priority)
    try:
        await attempt.cancelled_or(turn)
        yield turn.done()
    finally:
        slots.give_back(turn)


async def _check_quota(attempt: Attempt, executor: ContainerExecutor) -> None:
    """Raise NotStartedError if the host is avoided because a quota is used up."""
    if executor.has_quota and await threads.read(host_store.is_cooling, attempt.job.host_id or 0):
        why = f"Host {attempt.host_name} is avoided for a while: a quota was used up."
        raise NotStartedError(ExecutorResourceError(why))


async def _remove_uncommitted(attempt: Attempt, executor: ContainerExecutor) -> None:
    """Remove what an earlier claim of the attempt may have created without committing its id.

    It was never started, because the id is committed first. What runs or has run under the attempt's labels was
    therefore started by a person, or before a backup of the database was restored: it is left to the reconciler.
    """
    if not attempt.may_exist:
        return
    try:
        found = await executor.find(attempt.spec)
    except ExecutorClosedError:
        raise
    except ExecutorError as error:
        if attempt.start_sent:
            raise
        raise NotStartedError(error) from error
    if found is not None and found.state is ExecutionState.CREATED:
        await _remove_created(attempt, executor, found.id)


async def _remove_created(attempt: Attempt, executor: ContainerExecutor, execution_id: str) -> None:
    await attempt.write(transitions.check_claim, None)
    await executor.remove(execution_id)


async def _has_not_run(attempt: Attempt, executor: ContainerExecutor, execution: Execution) -> bool:
    """Whether an execution that is gone was never started. If that is not certain, the attempt is ended."""
    ran = await executor.has_run(execution)
    if ran is None:
        why = (
            f"Host {attempt.host_name} does not know whether the container ran: its engine was restarted during the "
            "launch, or has forgotten."
        )
        await attempt.fail_by_host(HostFault(why, configuration.current().infrastructure_retries))
    elif ran:
        await attempt.end(attempt.judge(None))
    return ran is False


async def _create_and_start(attempt: Attempt, executor: ContainerExecutor) -> ExecutionStatus | None:
    if attempt.cancel_requested.done():
        await attempt.end(End(JobStatus.CANCELLED))
        return None
    execution_id = await _in_progress(attempt, executor.create(attempt.spec, attempt.progress.report))
    if execution_id is None:
        await _remove_leftover(attempt, executor)
        await attempt.end(End(JobStatus.CANCELLED))
        return None
    execution = await attempt.commit_execution(execution_id)
    attempt.start_sent, attempt.began = True, time.monotonic()
    try:
        state = await executor.start(execution)
    except (ExecutorConfigurationError, ExecutorOperationError, ExecutorResourceError) as error:
        return await _after_refused_start(attempt, executor, execution, error)
    attempt.may_exist = True
    return ExecutionStatus(execution.id, state, started_at=clock.now())


async def _after_refused_start(
    attempt: Attempt, executor: ContainerExecutor, execution: Execution, error: ExecutorError
) -> ExecutionStatus | None:
    """The host answered that it did not start the execution; if it is still as it was created, it has not run."""
    status = await executor.status(execution)
    if status is not None and status.state is not ExecutionState.CREATED:
        return status
    if status is not None:
        await executor.remove(execution.id)
    if not await _has_not_run(attempt, executor, execution):
        return None
    attempt.execution, attempt.start_sent = None, False
    if status is not None and isinstance(error, ExecutorConfigurationError):
        raise error
    # An execution that is gone was removed from outside, which is not the job's fault.
    raise NotStartedError(error) from error


async def _in_progress(attempt: Attempt, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of a step that may take minutes and shows its progress; None when the job is cancelled meanwhile."""
    try:
        async with background(_write_progress(attempt)):
            return await _unless_cancelled(attempt, work)
    except (ExecutorConfigurationError, ExecutorAuthenticationError, ExecutorClosedError):
        raise
    except ExecutorError as error:
        # No id is committed, so no worker can have started it: safe to give up.
        raise NotStartedError(error) from error
    finally:
        if notes := attempt.progress.notes():
            await attempt.write(transitions.progress, Progress("", notes))


async def _unless_cancelled(attempt: Attempt, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of the work; None, and the work is cancelled, when the job is cancelled first."""
    async with background(work) as doing:
        await attempt.cancelled_or(doing)
        return doing.result() if doing.done() else None


async def _remove_leftover(attempt: Attempt, executor: ContainerExecutor) -> None:
    """Remove what a cancelled create call may have left: it can still take effect for a moment."""
    for _ in range(LEFTOVER_LOOKS):
        found = await executor.find(attempt.spec)
        if found is not None and found.state is ExecutionState.CREATED:
            await executor.remove(found.id)
            return
        await asyncio.sleep(LEFTOVER_PAUSE)


async def _write_progress(attempt: Attempt) -> None:
    while True:
        message = await attempt.progress.next_message()
        await attempt.write(transitions.progress, Progress(message))
        await asyncio.sleep(PROGRESS_EVERY)
