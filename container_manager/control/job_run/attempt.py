"""What a worker knows about the attempt that it drives, and how it writes about it."""

import asyncio
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from container_manager import clock, configuration
from container_manager.control.job_run.progress import LaunchProgress
from container_manager.control.job_run.verdict import Stop, judge
from container_manager.domain.lifecycle import JobStatus
from container_manager.domain.outcome import End, HostFault
from container_manager.executors.base import Execution, ExecutionStatus, LaunchSpec
from container_manager.executors.exceptions import (
    ExecutorConnectionError,
    ExecutorError,
    ExecutorImageError,
    ExecutorPlatformError,
    ExecutorPullQuotaError,
    ExecutorResourceError,
)
from container_manager.models import ContainerJob
from container_manager.store import transitions
from container_manager.store.transaction import Fence, Unit
from container_manager.store.writer import Writer


def _age(at: datetime | None) -> float:
    """Seconds since a moment that is not in the future."""
    return 0.0 if at is None else max((clock.now() - at).total_seconds(), 0.0)


@dataclass
class Attempt:
    """One attempt of a job under one claim. Every write names the claim and raises LeaseLostError once it is lost."""

    job: ContainerJob
    fence: Fence
    spec: LaunchSpec
    writer: Writer
    execution: Execution | None
    """The execution whose id is committed, or that was found by its name."""
    may_exist: bool
    """An execution under this attempt's name may exist; only the first claim of the job can exclude it."""
    start_sent: bool
    """A start may have been sent, so a host that does not answer may be running the job."""
    started_at: datetime | None
    began: float
    """Since when the execution has run or, before it does, has had time to start; on the monotonic clock."""
    stop: Stop | None
    cancel_requested: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done once a client wants the job cancelled. A future, because waiting for an event takes a task each time."""
    progress: LaunchProgress = field(default_factory=LaunchProgress)
    ended: bool = False
    output_failures: int = 0

    @classmethod
    def of(cls, job: ContainerJob, fence: Fence, spec: LaunchSpec, writer: Writer) -> "Attempt":
        """From the claimed row."""
        stop = Stop(JobStatus(job.stop_reason), job.stopped_at) if job.stop_reason and job.stopped_at else None
        attempt = cls(
            job=job,
            fence=fence,
            spec=spec,
            writer=writer,
            execution=Execution(job.execution_id, spec) if job.execution_id else None,
            may_exist=fence.epoch > 1,
            start_sent=job.launched_at is not None or bool(job.execution_id),
            started_at=job.started_at,
            began=time.monotonic() - _age(job.started_at or job.launched_at),
            stop=stop,
        )
        if job.cancel_requested_at:
            attempt.request_cancel()
        return attempt

    @property
    def host_name(self) -> str:
        return self.job.host.name if self.job.host else ""

    def request_cancel(self) -> None:
        """A client wants the job cancelled."""
        if not self.cancel_requested.done():
            self.cancel_requested.set_result(None)

    async def cancelled_or(self, awaited: "asyncio.Future[Any]", timeout: float | None = None) -> None:
        """Wait until the future is done, the job is to be cancelled, or `timeout` seconds are over."""
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait({awaited, self.cancel_requested}, timeout=timeout, return_when=first)

    async def write(self, unit: Unit, item: Any) -> None:
        """Write through the claim.

        Raises:
            LeaseLostError: another worker holds the job now.
        """
        await self.writer.write(unit, (self.fence, item))

    async def commit_execution(self, execution_id: str) -> Execution:
        """Commit the id of the attempt's execution. From here on it may be started."""
        await self.write(transitions.created, execution_id)
        self.execution = Execution(execution_id, self.spec)
        return self.execution

    async def commit_start(self, status: ExecutionStatus) -> None:
        """Commit that the execution has started, unless it is committed already."""
        if self.started_at is None:
            at = self._plausible(status.started_at)
            await self.write(transitions.started, at)
            self.started_at, self.began = at, time.monotonic() - _age(at)

    def _plausible(self, at: datetime | None) -> datetime:
        """A start time by the host's clock, which may be wrong: not before the launch and not after now."""
        now = clock.now()
        return min(max(at or now, self.job.launched_at or self.job.submitted_at), now)

    def in_own_time(self, status: ExecutionStatus) -> ExecutionStatus:
        """The status with times by this service's clock: the start as committed, and the end after the same time."""
        if self.started_at is None or status.started_at is None or status.finished_at is None:
            return status
        ran = max(status.finished_at - status.started_at, timedelta())
        return replace(status, started_at=self.started_at, finished_at=min(self.started_at + ran, clock.now()))

    def judge(self, status: ExecutionStatus | None) -> End:
        """The verdict on an execution that has ended or is gone."""
        return judge(
            status,
            self.stop,
            cancel_requested=self.cancel_requested.done(),
            timeout_seconds=self.job.timeout_seconds,
        )

    async def begin_stop(self, reason: JobStatus) -> None:
        """Commit why the execution is being stopped, before the signal is sent.

        Without it, a worker that takes over would not know that this service caused the end.
        """
        await self.write(transitions.stopping, reason)
        self.stop = Stop(reason, clock.now())

    def confirm_stop(self, confirmed: bool | None) -> None:
        """Keep what the executor says about the stop."""
        assert self.stop is not None  # noqa: S101 - `begin_stop` comes first
        self.stop = replace(self.stop, confirmed=confirmed)

    async def end(self, end: End) -> None:
        """Commit the end of the attempt."""
        await self.write(transitions.finished, end)
        self.ended = True

    async def fail_by_host(self, fault: HostFault) -> None:
        """Commit that the host failed the attempt, so that the job is routed again."""
        await self.write(transitions.host_failed, fault)
        self.ended = True

    async def fail_before_run(self, error: ExecutorError) -> None:
        """Commit that the host failed the attempt before anything ran.

        When the host did not answer or a quota is used up, the job is retried without limit.
        """
        # A registry's refusal is bounded: one job must not make all hosts be avoided.
        is_bounded = isinstance(error, ExecutorPullQuotaError)
        unlimited = isinstance(error, (ExecutorConnectionError, ExecutorResourceError)) and not is_bounded
        await self.fail_by_host(
            HostFault(
                str(error),
                retries=None if unlimited else configuration.current().infrastructure_retries,
                exhausted=isinstance(error, ExecutorResourceError),
                ejects=not isinstance(error, ExecutorImageError),
            )
        )

    async def fail_by_lack(self, error: ExecutorError) -> None:
        """Commit that the host lacks what the job needs, so that it is routed to one that may have it."""
        shown = not isinstance(error, ExecutorPlatformError)
        await self.fail_by_host(HostFault(str(error), retries=None, lacking=True, ejects=False, shown=shown))
