"""One claimed job, from wherever it is to its end."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

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
    ExecutorClosedError,
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorOperationError,
)
from container_manager.executors.factory import ExecutorFactory
from container_manager.executors.output import OutputLine
from container_manager.lifecycle import JobStatus
from container_manager.models import ContainerJob, ExecutorHost
from container_manager.store import dispatch, threads
from container_manager.store import hosts as host_store
from container_manager.store.dispatch import End, Fence, HostFault, LeaseLostError
from container_manager.store.writer import Writer

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_LOOK_AGAIN, LAST_LOOK_AGAIN = 0.5, 15.0
"""Seconds between looks at an executor that does not answer."""

LOOK_EVERY = 60.0
"""Seconds between looks at an execution whose end is waited for."""

SETTLE = 2.0
"""Seconds that a start without an answer has to take effect, once the executor answers again."""

LEFTOVER_LOOKS, LEFTOVER_PAUSE = 10, 0.1
ANSWERED_RETRIES = 2
MOST_HARVESTS = 5
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
        # A start may have been sent for this attempt: whoever does not answer may be running it.
        self._marked = job.launched_at is not None or bool(job.execution_id)
        self.ended = False
        self._started_at: datetime | None = job.started_at
        self._stopping_as: JobStatus | None = None
        self._stopped = False
        self._harvests = 0
        self._looked = False
        self._pause = FIRST_LOOK_AGAIN
        self._cancelled = asyncio.Event()
        if job.cancel_requested_at:
            self._cancelled.set()

    def cancel(self) -> None:
        """The job's end was asked for."""
        self._cancelled.set()

    async def drive(self) -> None:
        """Bring the job to its end, however often its executor falls silent on the way."""
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
                await asyncio.sleep(self._pause)
                self._pause = min(self._pause * 2, LAST_LOOK_AGAIN)

    async def _proceed(self) -> None:
        try:
            executor = self._factory.get_executor(await self._current_host())
            status = await self._launch(executor)
        except (ExecutorConfigurationError, ExecutorAuthenticationError) as error:
            if self._execution is not None or self._marked:
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
            self._pause = FIRST_LOOK_AGAIN
            await self._started(status.started_at or timezone.now())
            status = await self._watch(executor, execution)
        if status is not None and status.started_at is not None:
            await self._started(status.started_at)
        end = self._judge(status)
        await self._finish(executor, execution, replace(end, output=await self._harvest(executor, execution)))

    async def _current_host(self) -> ExecutorHost:
        """The host, read again after something went wrong: its settings may have been changed since the claim."""
        host = self._job.host
        assert host is not None  # noqa: S101 - a claimed job has a host, which is not deleted while it holds jobs
        if self._looked:
            host = (await threads.read(host_store.by_ids, [host.pk])).get(host.pk, host)
        self._looked = True
        return host

    # -------------------------------------------------------------- launching

    async def _launch(self, executor: ContainerExecutor) -> ExecutionStatus | None:
        """Bring the execution to where it runs or has run; None when the job ended instead."""
        found = await self._find(executor)
        if found is not None and found.state is ExecutionState.CREATED and self._marked:
            # Its start may be under way: give it the time to show.
            await asyncio.sleep(SETTLE)
            found = await self._find(executor)
        if found is not None and found.state is not ExecutionState.CREATED:
            await self._adopt(found)
            return found
        if self._execution is not None and found is None:
            await self._end(End(JobStatus.FAILED, error=VANISHED))
            return None
        if found is not None:
            await self._discard(executor, found.id)
        # Only what is new takes a place in the line: looking, adopting and stopping must not wait behind a pull.
        if await self._before_cancel(self._slots.acquire()) is None:
            await self._end(End(JobStatus.CANCELLED))
            return None
        try:
            return await self._create_and_start(executor)
        finally:
            self._slots.release()

    async def _before_cancel(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T] | None:
        """Do the work, or give it up when the job is cancelled first: its task when it is done, else None."""
        doing = asyncio.create_task(work)
        cancelled = asyncio.create_task(self._cancelled.wait())
        try:
            await asyncio.wait({doing, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            return doing if doing.done() else None
        finally:
            doing.cancel()
            cancelled.cancel()
            await asyncio.gather(doing, cancelled, return_exceptions=True)

    async def _find(self, executor: ContainerExecutor) -> ExecutionStatus | None:
        if self._execution is not None:
            return await executor.status(self._execution)
        try:
            return await executor.find(self._spec) if self._may_exist else None
        except ExecutorClosedError:
            raise
        except ExecutorError as error:
            if self._marked:
                raise
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

    async def _create(self, executor: ContainerExecutor) -> Execution | None:
        """Create it, which may pull for minutes; None when it was cancelled meanwhile."""
        try:
            created = await self._before_cancel(executor.create(self._spec))
            return None if created is None else Execution(created.result(), self._spec)
        except (ExecutorConfigurationError, ExecutorAuthenticationError, ExecutorClosedError):
            raise
        except ExecutorError as error:
            # Without a committed id nobody starts it: free to abandon, even if it has come into being.
            raise _NotStartedError(error) from error

    async def _remove_leftover(self, executor: ContainerExecutor) -> None:
        """Remove what a create that was given up may have left; its name is taken before it can be found by it."""
        for _ in range(LEFTOVER_LOOKS):
            if (found := await executor.find(self._spec)) is not None:
                await executor.remove(found.id)
                return
            await asyncio.sleep(LEFTOVER_PAUSE)

    async def _create_and_start(self, executor: ContainerExecutor) -> ExecutionStatus | None:
        if self._cancelled.is_set():
            await self._end(End(JobStatus.CANCELLED))
            return None
        execution = await self._create(executor)
        if execution is None:
            await self._remove_leftover(executor)
            await self._end(End(JobStatus.CANCELLED))
            return None
        await self._writer.write(dispatch.created, (self._fence, execution.id))
        self._execution, self._marked = execution, True
        try:
            await executor.start(execution)
        except (ExecutorConfigurationError, ExecutorOperationError) as error:
            # The engine answered; if it is as it was, it has not run.
            status = await executor.status(execution)
            if status is not None and status.state is not ExecutionState.CREATED:
                return status
            if status is not None:
                await self._discard(executor, execution.id)
            self._marked = False
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
            while not ended.done():
                left = self._time_left()
                if cancelled.done() or not left:
                    self._stopping_as = JobStatus.CANCELLED if cancelled.done() else JobStatus.TIMED_OUT
                    self._stopped = await executor.stop(execution, settings.CONTAINER_MANAGER.stop_grace_seconds)
                    return await executor.status(execution)
                await asyncio.wait(
                    {ended, cancelled}, timeout=min(left, LOOK_EVERY), return_when=asyncio.FIRST_COMPLETED
                )
                if not ended.done() and not cancelled.done():
                    # A connection can die without a word; looking is the repair.
                    status = await executor.status(execution)
                    if status is None or status.state is ExecutionState.EXITED:
                        return status
            return ended.result()
        finally:
            ended.cancel()
            cancelled.cancel()
            await asyncio.gather(ended, cancelled, return_exceptions=True)

    def _time_left(self) -> float:
        assert self._started_at is not None  # noqa: S101 - it runs
        deadline = self._started_at + timedelta(seconds=self._job.timeout_seconds)
        return max((deadline - timezone.now()).total_seconds(), 0)

    def _judge(self, status: ExecutionStatus | None) -> End:
        """The verdict. An end of its own stands, whatever we were about to do."""
        if status is None or status.state is not ExecutionState.EXITED:
            return End(JobStatus.FAILED, error=VANISHED)
        end = End(JobStatus.FAILED, status.exit_code, status.error, status.started_at, status.finished_at)
        why = self._stopping_as if self._stopped else self._stopped_unseen(status)
        if why is JobStatus.TIMED_OUT:
            limit = self._job.timeout_seconds
            error = f"The job ran longer than its timeout of {limit} s and was stopped."
            return replace(end, status=why, error=error)
        if why is not None:
            return replace(end, status=why)
        if status.exit_code == 0 and not status.error:
            return replace(end, status=JobStatus.SUCCEEDED)
        if status.out_of_memory and not status.error:
            return replace(end, error="It used more memory than its limit.")
        return end

    def _stopped_unseen(self, status: ExecutionStatus) -> JobStatus | None:
        """Why it was stopped by us without an answer, or by the worker before us, if its end looks like that."""
        if status.exit_code not in ENDED_BY_SIGNAL or status.out_of_memory:
            return None
        if self._stopping_as is not None:
            return self._stopping_as
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
        except ExecutorError as error:
            self._harvests += 1
            if isinstance(error, ExecutorConnectionError) and self._harvests < MOST_HARVESTS:
                raise
            # The engine has none to give (a log driver that cannot be read), or never to the end: the verdict goes on.
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
        self.ended = True

    async def _end_or_retry(self, error: ExecutorError) -> None:
        """Nothing has run, so the job may run elsewhere; as often as it takes while a host does not answer."""
        retries = None if isinstance(error, ExecutorConnectionError) else ANSWERED_RETRIES
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
