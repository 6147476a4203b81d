"""Concluding an attempt: judge its end, keep its output, and remove its container."""

import asyncio
import logging
import time
from dataclasses import replace

from container_manager import configuration
from container_manager.control.job_run.attempt import Attempt
from container_manager.control.job_run.verdict import stopped_as
from container_manager.domain.lifecycle import JobStatus
from container_manager.domain.outcome import End, HostFault
from container_manager.executors.base import ContainerExecutor, Execution, ExecutionStatus
from container_manager.executors.exceptions import (
    ExecutorConnectionError,
    ExecutorError,
    ExecutorOperationError,
)
from container_manager.executors.output import Output, OutputLine
from container_manager.store import transitions
from container_manager.store.outputs import compress

logger = logging.getLogger(__name__)

MOST_OUTPUT_FAILURES = 5
"""How often reading the output may fail because the host does not answer, before the attempt ends without it."""


async def conclude(
    attempt: Attempt, executor: ContainerExecutor, execution: Execution, status: ExecutionStatus | None
) -> None:
    """End the attempt of an execution that has ended or is gone (`status` None).

    If the host has ended it, the job gets another attempt, unless it is to be cancelled.
    """
    if status is None:
        await _finish(attempt, executor, execution, attempt.judge(None))
        return
    status = attempt.in_own_time(status)
    if stopped_as(status, attempt.stop) is None:
        status = await _explain(executor, execution, status)
    end = replace(attempt.judge(status), output=await _read_output(attempt, executor, execution))
    if status.runs_again:
        await executor.stop(execution, 0)
    if status.interrupted and stopped_as(status, attempt.stop) is None:
        if not attempt.cancel_requested.done():
            retries = configuration.current().infrastructure_retries
            await attempt.fail_by_host(HostFault(status.error, retries, end))
            await _remove(executor, execution)
            return
        end = replace(end, status=JobStatus.CANCELLED, error="")
    await _finish(attempt, executor, execution, end)


async def _explain(executor: ContainerExecutor, execution: Execution, status: ExecutionStatus) -> ExecutionStatus:
    """The status with what the host knows about the end. A host that answers and does not tell is not asked again.

    Raises:
        ExecutorConnectionError: the host does not answer.
    """
    try:
        return await executor.explain(execution, status)
    except ExecutorConnectionError:
        raise
    except ExecutorError as error:
        logger.warning("the end of %s could not be explained: %s", execution.spec.name, error)
    except Exception:
        logger.exception("the end of %s could not be explained", execution.spec.name)
    return status


async def _read_output(attempt: Attempt, executor: ContainerExecutor, execution: Execution) -> bytes:
    """The output, compressed. If it cannot be read, the attempt ends with a note in its place.

    Raises:
        ExecutorConnectionError: the host does not answer, and there are tries left.
    """
    try:
        output = await executor.logs(execution)
    except Exception as error:
        if not isinstance(error, ExecutorError):
            logger.exception("the output could not be read")
        attempt.output_failures += 1
        if isinstance(error, ExecutorConnectionError) and attempt.output_failures < MOST_OUTPUT_FAILURES:
            raise
        # The host cannot give the output (its log driver cannot be read), or never finishes. The attempt ends anyway.
        why = str(error) if isinstance(error, ExecutorError) else "an unexpected error, which is in the log"
        text = f"[container-manager: the output could not be read: {why}]"
        output = Output.of([OutputLine("stderr", time.time_ns(), text)])
    return await asyncio.to_thread(compress, output) if output else b""


async def _finish(attempt: Attempt, executor: ContainerExecutor, execution: Execution, end: End) -> None:
    if end.status is JobStatus.CANCELLED:
        # CANCELLED means that there is no container any more, so it is removed before the end is committed.
        if end.output:
            await attempt.write(transitions.output_read, end.output)
        await executor.remove(execution.id)
        await attempt.end(replace(end, output=b""))
        return
    await attempt.end(end)
    await _remove(executor, execution)


async def _remove(executor: ContainerExecutor, execution: Execution) -> None:
    try:
        try:
            await executor.remove(execution.id)
        except ExecutorOperationError:
            # A person may have started it again, and nothing may run beside the next attempt.
            await executor.stop(execution, 0)
            await executor.remove(execution.id)
    except ExecutorError as error:
        # The reconciler removes it later.
        logger.warning("container %s could not be removed: %s", execution.id, error)
