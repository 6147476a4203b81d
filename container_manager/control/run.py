"""One claimed job, from wherever it is to its end."""

import asyncio
import logging
import time
from dataclasses import replace
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from container_manager.executors.base import (
    ContainerExecutor,
    Execution,
    ExecutionState,
    ExecutionStatus,
    LaunchSpec,
)
from container_manager.executors.exceptions import (
    ExecutorAuthenticationError,
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorOperationError,
)
from container_manager.executors.factory import ExecutorFactory
from container_manager.executors.output import OutputLine
from container_manager.lifecycle import JobStatus
from container_manager.models import ContainerJob
from container_manager.store import dispatch
from container_manager.store.dispatch import End, Fence, HostFault, LeaseLostError
from container_manager.store.writer import Writer

logger = logging.getLogger(__name__)

FIRST_LOOK_AGAIN, LAST_LOOK_AGAIN = 0.5, 15.0
"""Seconds between looks at an executor that does not answer."""

ANSWERED_RETRIES = 2
ENDED_BY_SIGNAL = {137, 143}
VANISHED = "The container is gone from its host; what became of it is unknown."


class JobRun:
    """Launches or adopts, watches, harvests. Every commit is fenced; what the executor does not answer is unknown."""

    def __init__(
        self, job: ContainerJob, fence: Fence, writer: Writer, factory: ExecutorFactory, slots: asyncio.Semaphore
    ) -> None:
        self._job = job
        self._fence = fence
        self._writer = writer
        self._factory = factory
        self._slots = slots
        self._spec = launch_spec(job, factory.instance)
        self._execution = Execution(job.execution_id, self._spec) if job.execution_id else None
        # Only the first claim of an attempt can know that there is nothing yet under its name.
        self._may_exist = fence.epoch > 1
        self._started_at: datetime | None = job.started_at
        self._stopped_as: JobStatus | None = None
        self._cancelled = asyncio.Event()
        if job.cancel_requested_at:
            self._cancelled.set()

    def cancel(self) -> None:
        """The job's end was asked for."""
        self._cancelled.set()

    async def drive(self) -> None:
        """Bring the job to its end, however often its executor falls silent on the way."""
        pause = FIRST_LOOK_AGAIN
        while True:
            try:
                await self._proceed()
                return
            except LeaseLostError:
                logger.info("job %s: taken over by another worker", self._job.pk)
                return
            except ExecutorError as error:
                # Start may have been sent: unknown, until seen.
                logger.warning("job %s: %s", self._job.pk, error)
                self._may_exist = True
                await asyncio.sleep(pause)
                pause = min(pause * 2, LAST_LOOK_AGAIN)

    async def _proceed(self) -> None:
        try:
            executor = self._factory.get_executor(self._job)
            status = await self._launch(executor)
        except (ExecutorConfigurationError, ExecutorAuthenticationError) as error:
            if self._execution is not None:
                # It may be running on a host whose settings somebody has broken since: unknown, until seen.
                raise
            await self._end(End(JobStatus.FAILED, error=str(error)))
            return
        except _NotStartedError as refused:
            await self._end_or_retry(refused.error)
            return
        execution = self._execution
        if status is None or execution is None:
            return
        if status.state is ExecutionState.RUNNING:
            await self._started(status.started_at or timezone.now())
            status = await self._watch(executor, execution)
        if status is not None and status.started_at is not None:
            await self._started(status.started_at)
        end = self._judge(status)
        await self._finish(executor, execution, replace(end, output=await self._harvest(executor, execution)))

    # -------------------------------------------------------------- launching

    async def _launch(self, executor: ContainerExecutor) -> ExecutionStatus | None:
        """Bring the execution to where it runs or has run; None when the job ended instead."""
        async with self._slots:
            found = await self._find(executor)
            if found is not None and found.state is not ExecutionState.CREATED:
                await self._adopt(found)
                return found
            if self._execution is not None and found is None:
                await self._end(End(JobStatus.FAILED, error=VANISHED))
                return None
            if found is not None:
                await self._discard(executor, found.id)
            if self._cancelled.is_set():
                await self._end(End(JobStatus.CANCELLED))
                return None
            return await self._create_and_start(executor)

    async def _find(self, executor: ContainerExecutor) -> ExecutionStatus | None:
        if self._execution is not None:
            return await executor.status(self._execution)
        try:
            return await executor.find(self._spec) if self._may_exist else None
        except ExecutorError as error:
            raise _NotStartedError(error) from error

    async def _adopt(self, found: ExecutionStatus) -> None:
        if self._execution is None:
            await self._writer.write(dispatch.created, (self._fence, found.id))
            self._execution = Execution(found.id, self._spec)

    async def _discard(self, executor: ContainerExecutor, execution_id: str) -> None:
        """Remove what was prepared and has not run. Its owner may be frozen, but what is gone cannot be started late.

        The id is forgotten first: an id without a container means that a container has vanished.
        """
        if self._execution is not None:
            await self._writer.write(dispatch.discarded, self._fence)
            self._execution = None
        await executor.remove(execution_id)

    async def _create_and_start(self, executor: ContainerExecutor) -> ExecutionStatus | None:
        try:
            execution = Execution(await executor.create(self._spec), self._spec)
        except (ExecutorConfigurationError, ExecutorAuthenticationError):
            raise
        except ExecutorError as error:
            # Without a committed id nobody starts it: free to abandon, even if it has come into being.
            raise _NotStartedError(error) from error
        await self._writer.write(dispatch.created, (self._fence, execution.id))
        self._execution = execution
        try:
            await executor.start(execution)
        except (ExecutorConfigurationError, ExecutorOperationError) as error:
            # The engine answered; if it is as it was, it has not run.
            status = await executor.status(execution)
            if status is not None and status.state is not ExecutionState.CREATED:
                return status
            if status is not None:
                await self._discard(executor, execution.id)
            if isinstance(error, ExecutorConfigurationError):
                raise
            raise _NotStartedError(error) from error
        self._may_exist = True
        return ExecutionStatus(execution.id, ExecutionState.RUNNING, started_at=timezone.now())

    async def _started(self, at: datetime) -> None:
        if self._started_at is None:
            await self._writer.write(dispatch.started, (self._fence, at))
            self._started_at = at

    # -------------------------------------------------------------- watching

    async def _watch(self, executor: ContainerExecutor, execution: Execution) -> ExecutionStatus | None:
        """Wait for the end, and bring it about when it is cancelled or out of time."""
        ended = asyncio.create_task(executor.wait(execution))
        cancelled = asyncio.create_task(self._cancelled.wait())
        try:
            await asyncio.wait({ended, cancelled}, timeout=self._time_left(), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._stopped_as = JobStatus.CANCELLED if cancelled.done() else JobStatus.TIMED_OUT
                await executor.stop(execution, settings.CONTAINER_MANAGER.stop_grace_seconds)
            return await ended
        finally:
            ended.cancel()
            cancelled.cancel()
            await asyncio.gather(ended, cancelled, return_exceptions=True)

    def _time_left(self) -> float:
        assert self._started_at is not None  # noqa: S101 - it runs
        deadline = self._started_at + timedelta(seconds=self._job.timeout_seconds)
        return max((deadline - timezone.now()).total_seconds(), 0)

    def _judge(self, status: ExecutionStatus | None) -> End:
        """The verdict. Success stands, whatever we were about to do; a failure may be our own doing."""
        if status is None or status.state is not ExecutionState.EXITED:
            return End(JobStatus.FAILED, error=VANISHED)
        end = End(JobStatus.FAILED, status.exit_code, status.error, status.started_at, status.finished_at)
        if status.exit_code == 0 and not status.error:
            return replace(end, status=JobStatus.SUCCEEDED)
        why = self._stopped_as or self._stopped_by_another(status)
        if why is JobStatus.TIMED_OUT:
            limit = self._job.timeout_seconds
            return replace(end, status=why, error=f"The job ran longer than its timeout of {limit} s and was stopped.")
        if why is not None:
            return replace(end, status=why)
        if status.out_of_memory and not status.error:
            return replace(end, error="It used more memory than its limit.")
        return end

    def _stopped_by_another(self, status: ExecutionStatus) -> JobStatus | None:
        """Why the worker before us stopped it, if its end looks like that."""
        if status.exit_code not in ENDED_BY_SIGNAL or status.out_of_memory:
            return None
        if self._cancelled.is_set():
            return JobStatus.CANCELLED
        if status.started_at is None or status.finished_at is None:
            return None
        ran = (status.finished_at - status.started_at).total_seconds()
        return JobStatus.TIMED_OUT if ran >= self._job.timeout_seconds else None

    # -------------------------------------------------------------- ending

    async def _harvest(self, executor: ContainerExecutor, execution: Execution) -> list[OutputLine]:
        try:
            return await executor.logs(execution)
        except ExecutorConnectionError:
            raise
        except ExecutorError as error:
            # The engine answered that it has none (a log driver that cannot be read): the verdict does not wait for it.
            return [OutputLine("stderr", time.time_ns(), f"[container-manager: the output could not be read: {error}]")]

    async def _finish(self, executor: ContainerExecutor, execution: Execution, end: End) -> None:
        if end.status is JobStatus.CANCELLED:
            # CANCELLED says that there is no container any more.
            await executor.remove(execution.id)
            await self._end(end)
            return
        await self._end(end)
        try:
            await executor.remove(execution.id)
        except ExecutorError as error:
            logger.warning("job %s: its container could not be removed: %s", self._job.pk, error)

    async def _end(self, end: End) -> None:
        await self._writer.write(dispatch.finished, (self._fence, end))

    async def _end_or_retry(self, error: ExecutorError) -> None:
        """Nothing has run, so the job may run elsewhere. One that was answered is tried less often than silence."""
        retries = settings.CONTAINER_MANAGER.infrastructure_retries
        if not isinstance(error, ExecutorConnectionError):
            retries = min(retries, ANSWERED_RETRIES)
        await self._writer.write(dispatch.host_failed, (self._fence, HostFault(str(error), retries)))


class _NotStartedError(Exception):
    """The host failed the job, and it is certain that it has not run."""

    def __init__(self, error: ExecutorError) -> None:
        super().__init__(str(error))
        self.error = error


def launch_spec(job: ContainerJob, instance: str) -> LaunchSpec:
    """What an executor needs to run this attempt."""
    return LaunchSpec(
        job_id=job.pk,
        attempt=job.attempt,
        name=f"cm-{instance}-{job.pk}-{job.attempt}",
        image=job.image,
        command=tuple(job.command),
        environment=job.environment,
        memory_mb=job.memory_limit or 0,
        cpu_millis=round((job.cpu_limit or 0) * 1000),
    )
