"""The run of one claimed job, from wherever it is to its end."""

import asyncio
import logging
import secrets

from container_manager import configuration
from container_manager.aio import Slots, wait_for
from container_manager.control.job_run.attempt import Attempt
from container_manager.control.job_run.conclude import conclude
from container_manager.control.job_run.launch import NotStartedError, launch
from container_manager.control.job_run.watch import time_left, watch, watch_start
from container_manager.domain.lifecycle import JobStatus
from container_manager.domain.outcome import End, FailureReason
from container_manager.errors import Unavailable
from container_manager.executors.base import ContainerExecutor, Execution, ExecutionState, ExecutionStatus
from container_manager.executors.exceptions import (
    ExecutorAuthenticationError,
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorHostError,
    ExecutorLackError,
    ExecutorOperationError,
)
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import ContainerJob, ExecutorHost
from container_manager.observability import tracing
from container_manager.observability.logs import bound_contextvars
from container_manager.store import hosts as host_store
from container_manager.store import threads, transitions
from container_manager.store.transaction import Fence
from container_manager.store.transitions import LeaseLostError, Progress
from container_manager.store.writer import Writer

logger = logging.getLogger(__name__)

FIRST_PAUSE, LAST_PAUSE = 0.5, 15.0
"""Seconds before another try when the host or the database does not answer."""

MOST_UNEXPECTED = 5
"""After so many unexpected failures of one run the attempt ends."""


class JobRun:
    """Drives one job under one claim. While the host does not answer, the state is unknown and is asked for again."""

    def __init__(self, job: ContainerJob, fence: Fence, writer: Writer, factory: ExecutorFactory, slots: Slots) -> None:
        self._attempt = Attempt.of(job, fence, factory.launch_spec(job), writer)
        self._factory = factory
        self._slots = slots
        self._pause = FIRST_PAUSE
        self._has_looked = False
        self._unexpected = 0
        self._trouble = self._shown_trouble = ""
        self._try_now = asyncio.Event()

    @property
    def fence(self) -> Fence:
        """The claim."""
        return self._attempt.fence

    @property
    def attempt(self) -> int:
        """The number of the attempt."""
        return self._attempt.job.attempt

    @property
    def host_id(self) -> int | None:
        """The host on which the job runs."""
        return self._attempt.job.host_id

    @property
    def ended(self) -> bool:
        """Whether the end of the attempt is committed."""
        return self._attempt.ended

    def cancel(self) -> None:
        """A client wants the job cancelled."""
        self._attempt.request_cancel()
        self._try_now.set()

    def try_now(self) -> None:
        """The host's health has changed: end the pause before the next try."""
        self._try_now.set()

    async def drive(self) -> None:
        """Bring the job to its end, however often its host stops answering on the way."""
        job = self._attempt.job
        fields = {"job": job.pk, "attempt": job.attempt, "host": self._attempt.host_name}
        attributes = {"job.id": job.pk, "job.attempt": job.attempt, "executor.type": job.executor_type}
        with (
            bound_contextvars(**fields),
            tracing.span("run job", job.trace_parent, **attributes, host=self._attempt.host_name),
        ):
            await self._drive()

    async def _drive(self) -> None:
        while True:
            try:
                await self._proceed()
                return
            except LeaseLostError:
                logger.info("another worker has taken over job %s", self._attempt.job.pk)
                return
            except ExecutorError as error:
                logger.warning("job %s: %s", self._attempt.job.pk, error)
                if isinstance(error, ExecutorOperationError) or self._pause > 2 * FIRST_PAUSE:
                    # The host has refused, or does not answer for more than a moment.
                    name = f"host {self._attempt.host_name}"
                    self._trouble = str(error) if name in str(error) else f"{name}: {error}"
            except (*threads.DATABASE_AWAY, Unavailable) as error:
                # The write may have been committed; the claim shows it at the next try.
                logger.warning("job %s: a write failed: %s", self._attempt.job.pk, error)
            except Exception:
                self._unexpected += 1
                logger.exception("job %s: the run failed unexpectedly", self._attempt.job.pk)
                if self._unexpected >= MOST_UNEXPECTED and await self._give_up():
                    return
            # A start may have been sent without an answer, so there may be an execution.
            self._attempt.may_exist = True
            self._try_now.clear()
            await wait_for(self._try_now, self._pause)
            self._pause = min(self._pause * 2, LAST_PAUSE)

    async def _give_up(self) -> bool:
        """End an attempt whose run fails again and again; returns whether its end is known.

        What it may have started is stopped first. Another attempt would fail in the same way, so there is none.
        """
        attempt, incident = self._attempt, secrets.token_hex(4)
        logger.error("incident %s: job %s is given up", incident, attempt.job.pk)
        status, error = JobStatus.FAILED, f"The service failed to run it; its log has the cause as incident {incident}."
        try:
            executor = self._factory.get_executor(await self._current_host())
            found = attempt.execution or await executor.find(attempt.spec)
            if found is not None:
                await executor.stop(Execution(found.id, attempt.spec), configuration.current().stop_grace_seconds)
                await executor.remove(found.id)
            if attempt.cancel_requested.done():
                status = JobStatus.CANCELLED
        except ExecutorConnectionError:
            return False
        except Exception:
            logger.exception(
                "what job %s has started could not be stopped; the reconciler will remove it", attempt.job.pk
            )
        try:
            await attempt.end(End(status, error=error, final=True, reason=FailureReason.SERVICE_ERROR))
        except LeaseLostError:
            return True
        except Exception:
            logger.exception("job %s could not be given up", attempt.job.pk)
            return False
        return True

    async def _proceed(self) -> None:
        attempt = self._attempt
        await self._show_trouble()
        try:
            executor = self._factory.get_executor(await self._current_host())
            with tracing.span("launch"):
                status = await launch(attempt, executor, self._slots)
        except (ExecutorConfigurationError, ExecutorAuthenticationError) as error:
            if attempt.execution is not None or attempt.start_sent:
                # The settings may have become invalid after the start, so the job may be running: try again.
                raise
            if isinstance(error, ExecutorHostError):
                await attempt.fail_before_run(error)
            elif isinstance(error, (ExecutorLackError, ExecutorAuthenticationError)):
                await attempt.fail_by_lack(error)
            else:
                await attempt.end(End(JobStatus.FAILED, error=str(error), final=True))
            return
        except NotStartedError as refused:
            await attempt.fail_before_run(refused.error)
            return
        if status is not None:
            await self._watch_and_conclude(executor, status)

    async def _watch_and_conclude(self, executor: ContainerExecutor, status: ExecutionStatus | None) -> None:
        """Watch an execution that was started until it has ended, and conclude the attempt."""
        attempt, execution = self._attempt, self._attempt.execution
        assert execution is not None  # noqa: S101 - a launch that returns a status has committed it
        if status is not None and status.state is ExecutionState.STARTING:
            self._pause = FIRST_PAUSE
            status = await watch_start(attempt, executor, execution)
        if status is not None and status.state is ExecutionState.RUNNING:
            await attempt.commit_start(status)
            if time_left(attempt) and not attempt.cancel_requested.done():
                self._pause, self._trouble = FIRST_PAUSE, ""
                await self._show_trouble()
            with tracing.span("watch"):
                status = await watch(attempt, executor, execution, ExecutionState.RUNNING)
        if status is not None and status.started_at is not None:
            await attempt.commit_start(status)
        with tracing.span("conclude"):
            await conclude(attempt, executor, execution, status)

    async def _show_trouble(self) -> None:
        """Show in the job's message what keeps it from going on, or that nothing does any more."""
        if self._trouble != self._shown_trouble:
            await self._attempt.write(transitions.progress, Progress(self._trouble))
            self._shown_trouble = self._trouble

    async def _current_host(self) -> ExecutorHost:
        """The host; read again at every try but the first, because its settings may have changed since the claim."""
        host = self._attempt.job.host
        assert host is not None  # noqa: S101 - a claimed job has a host, which is not deleted while it holds jobs
        if self._has_looked:
            host = (await threads.read(host_store.by_ids, [host.pk])).get(host.pk, host)
        self._has_looked = True
        return host
