"""One claimed job, from wherever it is to its end."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.db import Error as DatabaseError
from django.utils import timezone

from container_manager import tracing
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
    ExecutorHostError,
    ExecutorOperationError,
    ExecutorResourceError,
)
from container_manager.executors.factory import ExecutorFactory
from container_manager.executors.output import Output, OutputLine
from container_manager.lifecycle import JobStatus
from container_manager.models import ContainerJob, ExecutorHost
from container_manager.store import dispatch, threads
from container_manager.store import hosts as host_store
from container_manager.store.attempts import compress
from container_manager.store.dispatch import End, HostFault, LeaseLostError, Progress
from container_manager.store.transaction import Fence
from container_manager.store.writer import Writer
from container_manager.waiting import wait_for

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_LOOK_AGAIN, LAST_LOOK_AGAIN = 0.5, 15.0
"""Seconds between looks at an executor that does not answer."""

PROGRESS_EVERY = 2.0
"""Seconds between two reports of how a launch gets on."""

LEFTOVER_LOOKS, LEFTOVER_PAUSE = 10, 0.1
MOST_HARVESTS = 5
ENDED_BY_SIGNAL = {137, 143}
VANISHED = "The container is gone from its host; what became of it is unknown."


class JobRun:
    """Launches or adopts, watches, harvests. Every commit is fenced; what the executor does not answer is unknown."""

    def __init__(
        self, job: ContainerJob, fence: Fence, writer: Writer, factory: ExecutorFactory, slots: asyncio.Semaphore
    ) -> None:
        self._job = job
        self.fence = fence
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
        # Since when it has had time to start; a launch of our own sets it anew.
        self._starting_since = job.launched_at or timezone.now()
        # Why we stop it, or the worker before us did, and since when; and whether the executor says that we have.
        self._stopping_as = JobStatus(job.stop_reason) if job.stop_reason else None
        self._stopping_since = job.stopped_at
        self._stopped: bool | None = None
        self._harvests = 0
        self._looked = False
        self._pause = FIRST_LOOK_AGAIN
        self._reports = _Reports()
        self._look = asyncio.Event()
        self._cancelled = asyncio.Event()
        if job.cancel_requested_at:
            self._cancelled.set()

    def cancel(self) -> None:
        """The job's end was asked for."""
        self._cancelled.set()
        self._look.set()

    @property
    def host_id(self) -> int | None:
        """Where it runs."""
        return self._job.host_id

    def look_again(self) -> None:
        """The executor answers again: there is no need to wait any longer."""
        self._look.set()

    async def drive(self) -> None:
        """Bring the job to its end, however often its executor falls silent on the way."""
        job = self._job
        what = {"job.id": job.pk, "job.attempt": job.attempt, "executor.type": job.executor_type}
        with tracing.span("run job", job.trace_parent, **what, host=job.host.name if job.host else ""):
            await self._drive()

    async def _drive(self) -> None:
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
                await self._rest()
            except DatabaseError as error:
                # What was to be written may have been: the fence tells when it comes to it again.
                logger.warning("job %s: the database: %s", self._job.pk, error)
                await self._rest()

    async def _rest(self) -> None:
        self._may_exist = True
        self._look.clear()
        await wait_for(self._look, self._pause)
        self._pause = min(self._pause * 2, LAST_LOOK_AGAIN)

    async def _proceed(self) -> None:
        try:
            executor = self._factory.get_executor(await self._current_host())
            with tracing.span("launch"):
                status = await self._launch(executor)
        except (ExecutorConfigurationError, ExecutorAuthenticationError) as error:
            if self._execution is not None or self._marked:
                # It may be running on a host whose settings somebody has broken since: unknown, until seen.
                raise
            if isinstance(error, ExecutorHostError):
                await self._end_or_retry(error)
            else:
                await self._end(End(JobStatus.FAILED, error=str(error), final=True))
            return
        except _NotStartedError as refused:
            await self._end_or_retry(refused.error)
            return
        execution = self._execution
        if status is None or execution is None:
            return
        if status.state is ExecutionState.STARTING:
            self._pause = FIRST_LOOK_AGAIN
            status = await self._wait_for_start(executor, execution)
        if status is not None and status.state is ExecutionState.RUNNING:
            self._pause = FIRST_LOOK_AGAIN
            await self._started(self._plausible(status.started_at))
            with tracing.span("watch"):
                status = await self._watch(executor, execution, ExecutionState.RUNNING)
        if status is not None and status.started_at is not None:
            await self._started(self._plausible(status.started_at))
        with tracing.span("conclude"):
            await self._conclude(executor, execution, status)

    async def _conclude(
        self, executor: ContainerExecutor, execution: Execution, status: ExecutionStatus | None
    ) -> None:
        """Judge what has ended, keep what it wrote, and let another attempt do what the engine has cut off."""
        if status is not None and status.exit_code and self._ended_by_us(status) is None:
            status = await executor.explain(execution, status)
        end = self._judge(status)
        end = replace(end, output=await self._harvest(executor, execution) if status is not None else b"")
        if status is not None and status.interrupted and self._ended_by_us(status) is None:
            if not self._cancelled.is_set():
                retries = settings.CONTAINER_MANAGER.infrastructure_retries
                await self._host_failed(HostFault(status.error, retries, end))
                await self._remove(executor, execution)
                return
            end = replace(end, status=JobStatus.CANCELLED, error="")
        await self._finish(executor, execution, end)

    async def _current_host(self) -> ExecutorHost:
        """The host, read again after something went wrong: its settings may have been changed since the claim."""
        host = self._job.host
        assert host is not None  # noqa: S101 - a claimed job has a host, which is not deleted while it holds jobs
        if self._looked:
            host = (await threads.read(host_store.by_ids, [host.pk])).get(host.pk, host)
        self._looked = True
        return host

    @property
    def _host_name(self) -> str:
        return self._job.host.name if self._job.host else ""

    # -------------------------------------------------------------- launching

    async def _launch(self, executor: ContainerExecutor) -> ExecutionStatus | None:
        """Bring the execution to where it runs or has run; None when the job ended instead."""
        found = await self._find(executor)
        if found is not None and found.state is ExecutionState.CREATED and self._marked:
            # Its start may be under way: give it the time to show.
            await asyncio.sleep(executor.settle_seconds)
            found = await self._find(executor)
        if found is not None and found.state is not ExecutionState.CREATED:
            await self._adopt(found)
            return found
        if found is not None:
            # Its owner may be frozen, but what is gone cannot be started late.
            self._execution = self._execution or Execution(found.id, self._spec)
            await self._writer.write(dispatch.still_held, (self.fence, None))
            await executor.remove(found.id)
        if self._execution is not None:
            if self._started_at is not None:
                await self._end(self._judge(None))
                return None
            if self._marked and not await self._has_not_run(executor, self._execution):
                return None
            self._execution = None
        # Only what is new takes a place in the line: looking, adopting and stopping must not wait behind a pull.
        if await self._before_cancel(self._slots.acquire(), self._slots.release) is None:
            await self._end(End(JobStatus.CANCELLED))
            return None
        try:
            if executor.has_quota and await threads.read(host_store.is_cooling, self._job.host_id or 0):
                # Routed before it was known.
                exhausted = ExecutorResourceError(f"Host {self._host_name} is left alone: a quota was used up.")
                raise _NotStartedError(exhausted)
            return await self._create_and_start(executor)
        finally:
            self._slots.release()

    async def _before_cancel(
        self, work: Coroutine[Any, Any, T], undo: Callable[[], None] = lambda: None
    ) -> asyncio.Task[T] | None:
        """Do the work, or give it up when the job is cancelled first: its task when it is done, else None.

        `undo` is for work that is done when this run itself is ended.
        """
        doing = asyncio.create_task(work)
        cancelled = asyncio.create_task(self._cancelled.wait())
        try:
            await asyncio.wait({doing, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            return doing if doing.done() else None
        except asyncio.CancelledError:
            if doing.done() and not doing.cancelled() and doing.exception() is None:
                undo()
            raise
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
            await self._writer.write(dispatch.created, (self.fence, found.id))
            self._execution = Execution(found.id, self._spec)

    async def _create(self, executor: ContainerExecutor) -> Execution | None:
        """Create it, which may pull for minutes; None when it was cancelled meanwhile."""
        reporting = asyncio.create_task(self._report())
        try:
            created = await self._before_cancel(executor.create(self._spec, self._reports.hear))
            return None if created is None else Execution(created.result(), self._spec)
        except (ExecutorConfigurationError, ExecutorAuthenticationError, ExecutorClosedError):
            raise
        except ExecutorError as error:
            # Without a committed id nobody starts it: free to abandon, even if it has come into being.
            raise _NotStartedError(error) from error
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
            if notes := self._reports.notes():
                await self._writer.write(dispatch.progress, (self.fence, Progress("", notes)))

    async def _report(self) -> None:
        while True:
            message = await self._reports.news()
            await self._writer.write(dispatch.progress, (self.fence, Progress(message)))
            await asyncio.sleep(PROGRESS_EVERY)

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
        await self._writer.write(dispatch.created, (self.fence, execution.id))
        self._execution, self._marked, self._starting_since = execution, True, timezone.now()
        try:
            state = await executor.start(execution)
        except (ExecutorConfigurationError, ExecutorOperationError, ExecutorResourceError) as error:
            # The engine answered; if it is as it was, it has not run.
            status = await executor.status(execution)
            if status is not None and status.state is not ExecutionState.CREATED:
                return status
            if status is not None:
                await executor.remove(execution.id)
            if not await self._has_not_run(executor, execution):
                return None
            self._execution, self._marked = None, False
            if status is not None and isinstance(error, ExecutorConfigurationError):
                raise
            # Somebody has removed it: that is no fault of the job.
            raise _NotStartedError(error) from error
        self._may_exist = True
        return ExecutionStatus(execution.id, state, started_at=timezone.now())

    async def _has_not_run(self, executor: ContainerExecutor, execution: Execution) -> bool:
        """Whether an execution that is gone was never started; if that is not certain, the attempt has ended."""
        ran = await executor.has_run(execution)
        if ran is None:
            why = (
                f"Host {self._host_name} does not know whether the container ran: its engine was started again during "
                "the launch, or has forgotten."
            )
            await self._host_failed(HostFault(why, settings.CONTAINER_MANAGER.infrastructure_retries))
        elif ran:
            await self._end(self._judge(None))
        return ran is False

    async def _started(self, at: datetime) -> None:
        if self._started_at is None:
            await self._writer.write(dispatch.started, (self.fence, at))
            self._started_at = at

    def _plausible(self, at: datetime | None) -> datetime:
        """When it was started, by a clock that may be another: not before the launch and not after now."""
        now = timezone.now()
        return min(max(at or now, self._job.launched_at or self._job.submitted_at), now)

    # -------------------------------------------------------------- watching

    async def _wait_for_start(self, executor: ContainerExecutor, execution: Execution) -> ExecutionStatus | None:
        """Wait until it runs; one that is not started in time has failed by its host."""
        waiting = f"Host {self._host_name} has taken the job and is starting its container."
        await self._writer.write(dispatch.progress, (self.fence, Progress(waiting)))
        return await self._watch(executor, execution, ExecutionState.STARTING)

    async def _watch(
        self, executor: ContainerExecutor, execution: Execution, seen: ExecutionState
    ) -> ExecutionStatus | None:
        """Wait until it is further, and end it when it is cancelled or out of time."""
        ended = asyncio.create_task(executor.wait(execution, seen))
        cancelled = asyncio.create_task(self._cancelled.wait())
        try:
            while not ended.done():
                left = self._time_left()
                if not left and not cancelled.done() and seen is ExecutionState.STARTING:
                    return await self._give_up_starting(executor, execution)
                if not left or cancelled.done():
                    reason = JobStatus.CANCELLED if cancelled.done() else JobStatus.TIMED_OUT
                    await self._stop(executor, execution, reason)
                    status = await executor.status(execution)
                    if status is not None and status.state is not ExecutionState.EXITED:
                        raise ExecutorOperationError(
                            f"host {self._host_name}: {self._spec.name} runs although stopped."
                        )
                    return status
                await asyncio.wait({ended, cancelled}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            return ended.result()
        finally:
            ended.cancel()
            cancelled.cancel()
            await asyncio.gather(ended, cancelled, return_exceptions=True)

    async def _give_up_starting(self, executor: ContainerExecutor, execution: Execution) -> ExecutionStatus | None:
        """End what has not come to run in time, unless it has by now; that is no end of the job's own."""
        status = await executor.status(execution)
        if status is None or status.state is not ExecutionState.STARTING:
            return status
        stopped = await executor.stop(execution, 0)
        status = await executor.status(execution)
        if status is None or not stopped:
            return status
        seconds = settings.CONTAINER_MANAGER.pull_timeout_seconds
        return replace(status, interrupted=True, error=f"Host {self._host_name} did not start it within {seconds:g} s.")

    async def _stop(self, executor: ContainerExecutor, execution: Execution, reason: JobStatus) -> None:
        first = self._stopping_as is None
        if first:
            # Kept before the signal: should we die, what ends by it is not taken for an end of its own.
            await self._writer.write(dispatch.stopping, (self.fence, reason))
            self._stopping_as, self._stopping_since = reason, timezone.now()
        stopped = await executor.stop(execution, settings.CONTAINER_MANAGER.stop_grace_seconds)
        # That it had ended before is certain only of the first signal; an earlier one may have had no answer.
        self._stopped = stopped or (False if first else None)

    def _time_left(self) -> float:
        if self._started_at is not None:
            deadline = self._started_at + timedelta(seconds=self._job.timeout_seconds)
        else:
            patience = timedelta(seconds=settings.CONTAINER_MANAGER.pull_timeout_seconds)
            deadline = self._starting_since + patience
        return max((deadline - timezone.now()).total_seconds(), 0)

    def _judge(self, status: ExecutionStatus | None) -> End:
        """The verdict. An end of its own stands, whatever we were about to do."""
        if status is None:
            # Gone is what CANCELLED says.
            gone = End(JobStatus.FAILED, error=VANISHED)
            return replace(gone, status=JobStatus.CANCELLED, error="") if self._cancelled.is_set() else gone
        end = End(JobStatus.FAILED, status.exit_code, status.error, status.started_at, status.finished_at)
        why = self._ended_by_us(status) or (JobStatus.TIMED_OUT if status.timed_out else None)
        if why is JobStatus.TIMED_OUT:
            limit = self._job.timeout_seconds
            error = f"The job ran longer than its timeout of {limit} s and was stopped."
            return replace(end, status=why, error=error)
        if why is not None:
            return replace(end, status=why, error="")
        if status.exit_code == 0 and not status.error:
            return replace(end, status=JobStatus.SUCCEEDED)
        if status.out_of_memory and not status.error:
            return replace(end, error="It used more memory than its limit.")
        return end

    def _ended_by_us(self, status: ExecutionStatus) -> JobStatus | None:
        """As what we have stopped it, if that is what ended it; also when nobody heard the answer."""
        if self._stopping_as is None or self._stopped is False or self._stopping_since is None:
            return None
        if self._stopped or status.cancelled:
            return self._stopping_as
        if status.exit_code in ENDED_BY_SIGNAL and not status.out_of_memory:
            return self._stopping_as
        after = status.finished_at is not None and status.finished_at >= self._stopping_since
        return self._stopping_as if after else None

    # -------------------------------------------------------------- ending

    async def _harvest(self, executor: ContainerExecutor, execution: Execution) -> bytes:
        try:
            output = await executor.logs(execution)
        except Exception as error:
            if not isinstance(error, ExecutorError):
                logger.exception("job %s: reading its output", self._job.pk)
            self._harvests += 1
            if isinstance(error, ExecutorConnectionError) and self._harvests < MOST_HARVESTS:
                raise
            # The engine has none to give (a log driver that cannot be read), or never to the end: the verdict goes on.
            why = str(error) if isinstance(error, ExecutorError) else "it is not as expected; the log says how"
            text = f"[container-manager: the output could not be read: {why}]"
            output = Output.of([OutputLine("stderr", time.time_ns(), text)])
        return await asyncio.to_thread(compress, output) if output else b""

    async def _finish(self, executor: ContainerExecutor, execution: Execution, end: End) -> None:
        if end.status is JobStatus.CANCELLED:
            # CANCELLED says that there is no container any more.
            if end.output:
                await self._writer.write(dispatch.harvested, (self.fence, end.output))
            await executor.remove(execution.id)
            await self._end(replace(end, output=b""))
            return
        await self._end(end)
        await self._remove(executor, execution)

    async def _remove(self, executor: ContainerExecutor, execution: Execution) -> None:
        try:
            await executor.remove(execution.id)
        except ExecutorError as error:
            logger.warning("job %s: its container could not be removed: %s", self._job.pk, error)

    async def _end(self, end: End) -> None:
        await self._writer.write(dispatch.finished, (self.fence, end))
        self.ended = True

    async def _end_or_retry(self, error: ExecutorError) -> None:
        """Nothing has run, so the job may run elsewhere; as often as it takes while a host does not answer."""
        bounded = not isinstance(error, (ExecutorConnectionError, ExecutorResourceError))
        retries = settings.CONTAINER_MANAGER.infrastructure_retries if bounded else None
        exhausted, wrong = isinstance(error, ExecutorResourceError), isinstance(error, ExecutorHostError)
        await self._host_failed(HostFault(str(error), retries, exhausted=exhausted, wrong=wrong))

    async def _host_failed(self, fault: HostFault) -> None:
        await self._writer.write(dispatch.host_failed, (self.fence, fault))
        self.ended = True


class _Reports:
    """What an executor says about a launch that takes its time."""

    def __init__(self) -> None:
        self._said: list[OutputLine] = []
        self._new = asyncio.Event()

    def hear(self, message: str) -> None:
        """Keep the first and the last one."""
        self._said[1:] = [OutputLine("stderr", time.time_ns(), message)]
        if len(self._said) == 1 or self._said[0].text == message:
            del self._said[1:]
        self._new.set()

    async def news(self) -> str:
        """The next message that is new."""
        await self._new.wait()
        self._new.clear()
        return self._said[-1].text

    def notes(self) -> list[OutputLine]:
        """What is to stay in the attempt's output."""
        return [line._replace(text=f"[container-manager: {line.text}]") for line in self._said]


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
        timeout_seconds=job.timeout_seconds,
        entry_point=tuple(job.entry_point),
        working_dir=job.working_dir,
        user=job.user,
        network=job.network,
        read_only_root=job.read_only_root,
        tmpfs=job.tmpfs,
    )
