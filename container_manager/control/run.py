"""One claimed job, from wherever it is to its end."""

import asyncio
import logging
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
    ExecutorError,
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
        self._cancelled = asyncio.Event()
        if job.cancel_requested_at:
            self._cancelled.set()

    def cancel(self) -> None:
        """The job's end was asked for."""
        self._cancelled.set()

    async def drive(self) -> None:
        pause = FIRST_LOOK_AGAIN
        while True:
            try:
                await self._proceed(self._factory.get_executor(self._job))
            except LeaseLostError:
                logger.info("job %s: taken over by another worker", self._job.pk)
            except (ExecutorConfigurationError, ExecutorAuthenticationError) as error:
                await self._write_end(End(JobStatus.FAILED, error=str(error)))
            except ExecutorError as error:
                if self._execution is None and await self._give_back(error):
                    return
                # Start may have been sent: unknown, until seen.
                logger.warning("job %s: %s", self._job.pk, error)
                self._may_exist = True
                await asyncio.sleep(pause)
                pause = min(pause * 2, LAST_LOOK_AGAIN)
                continue
            return

    async def _proceed(self, executor: ContainerExecutor) -> None:
        status = await self._launch(executor)
        if status is None:
            return
        execution = self._execution
        assert execution is not None  # noqa: S101 - launched
        if status.state is ExecutionState.RUNNING:
            self._started_at = self._started_at or status.started_at or timezone.now()
            await self._writer.write(dispatch.started, (self._fence, self._started_at))
            end = await self._watch(executor, execution)
        else:
            end = _end(status)
        if self._started_at is None and status.started_at is not None:
            await self._writer.write(dispatch.started, (self._fence, status.started_at))
        output = await self._harvest(executor, execution)
        await self._finish(executor, execution, end, output)

    async def _launch(self, executor: ContainerExecutor) -> ExecutionStatus | None:
        """Bring the execution to where it runs or has run; None when the job ended instead."""
        async with self._slots:
            found = await self._find(executor)
            if found is not None and found.state is not ExecutionState.CREATED:
                await self._adopt(found)
                return found
            if self._execution is not None and found is None:
                await self._write_end(
                    End(JobStatus.FAILED, error="The container is gone from its host; what became of it is unknown.")
                )
                return None
            if found is not None:
                # Prepared by an owner who may be frozen in the middle: what is removed can never be started late.
                await executor.remove(found.id)
            if self._cancelled.is_set():
                await self._write_end(End(JobStatus.CANCELLED))
                return None
            execution = Execution(await executor.create(self._spec), self._spec)
            await self._writer.write(dispatch.created, (self._fence, execution.id))
            self._execution = execution
            await executor.start(execution)
        self._may_exist = True
        return ExecutionStatus(execution.id, ExecutionState.RUNNING, started_at=timezone.now())

    async def _find(self, executor: ContainerExecutor) -> ExecutionStatus | None:
        if self._execution is not None:
            return await executor.status(self._execution)
        return await executor.find(self._spec) if self._may_exist else None

    async def _adopt(self, found: ExecutionStatus) -> None:
        if self._execution is None:
            await self._writer.write(dispatch.created, (self._fence, found.id))
            self._execution = Execution(found.id, self._spec)

    async def _watch(self, executor: ContainerExecutor, execution: Execution) -> End:
        """Wait for the end, and bring it about when it is cancelled or out of time."""
        assert self._started_at is not None  # noqa: S101 - it runs
        left = (self._started_at + timedelta(seconds=self._job.timeout_seconds) - timezone.now()).total_seconds()
        ended = asyncio.create_task(executor.wait(execution))
        cancelled = asyncio.create_task(self._cancelled.wait())
        try:
            await asyncio.wait({ended, cancelled}, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return _end(ended.result())
            why = JobStatus.CANCELLED if cancelled.done() else JobStatus.TIMED_OUT
            await executor.stop(execution, settings.CONTAINER_MANAGER.stop_grace_seconds)
            return self._ended_by_us(await ended, why)
        finally:
            ended.cancel()
            cancelled.cancel()
            await asyncio.gather(ended, cancelled, return_exceptions=True)

    def _ended_by_us(self, status: ExecutionStatus | None, why: JobStatus) -> End:
        end = _end(status)
        if end.status is JobStatus.SUCCEEDED:
            # It ended by itself, in the moment between our decision and our signal.
            return end
        timeout = f"The job ran longer than its timeout of {self._job.timeout_seconds} s and was stopped."
        error = timeout if why is JobStatus.TIMED_OUT else ""
        return End(why, end.exit_code, error, end.started_at, end.finished_at)

    async def _harvest(self, executor: ContainerExecutor, execution: Execution) -> list[OutputLine]:
        try:
            return await executor.logs(execution)
        except (ExecutorConfigurationError, ExecutorAuthenticationError):
            return []

    async def _finish(
        self, executor: ContainerExecutor, execution: Execution, end: End, output: list[OutputLine]
    ) -> None:
        complete = End(end.status, end.exit_code, end.error, end.started_at, end.finished_at, output)
        if end.status is JobStatus.CANCELLED:
            # CANCELLED says that there is no container any more.
            await executor.remove(execution.id)
            await self._writer.write(dispatch.finished, (self._fence, complete))
            return
        await self._writer.write(dispatch.finished, (self._fence, complete))
        try:
            await executor.remove(execution.id)
        except ExecutorError as error:
            logger.warning("job %s: its container could not be removed: %s", self._job.pk, error)

    async def _write_end(self, end: End) -> None:
        try:
            await self._writer.write(dispatch.finished, (self._fence, end))
        except LeaseLostError:
            logger.info("job %s: taken over by another worker", self._job.pk)

    async def _give_back(self, error: ExecutorError) -> bool:
        """Nothing was started, so the job may run elsewhere."""
        fault = HostFault(str(error), settings.CONTAINER_MANAGER.infrastructure_retries)
        try:
            await self._writer.write(dispatch.host_failed, (self._fence, fault))
        except LeaseLostError:
            logger.info("job %s: taken over by another worker", self._job.pk)
        return True


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


def _end(status: ExecutionStatus | None) -> End:
    if status is None or status.state is not ExecutionState.EXITED:
        return End(JobStatus.FAILED, error="The container is gone from its host; what became of it is unknown.")
    if status.exit_code == 0 and not status.error:
        return End(JobStatus.SUCCEEDED, 0, "", status.started_at, status.finished_at)
    error = status.error or ("It used more memory than its limit." if status.out_of_memory else "")
    return End(JobStatus.FAILED, status.exit_code, error, status.started_at, status.finished_at)
