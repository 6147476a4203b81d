"""Claims routed jobs and drives each of them in a task of its own."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from container_manager.aio import Slots, cancel_and_wait, wait_for
from container_manager.control.job_run.run import JobRun
from container_manager.domain.kinds import EventKind
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import ContainerJob
from container_manager.observability import metrics
from container_manager.store import leases, threads
from container_manager.store.events import AnyEvent
from container_manager.store.transaction import Claimed, Fence, Worker
from container_manager.store.writer import Writer

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 4
STARTED_AT_ONCE = 50
"""Runs that are started in one turn of the event loop, so that other tasks get theirs."""

HOST_CHANGES = frozenset({EventKind.HOST_UPDATED, EventKind.HOST_HEALTH_CHANGED, EventKind.HOST_LOST})


class Dispatcher:
    """Wakes on routed jobs and cancellations. Each turn also claims jobs with expired leases."""

    name = "dispatcher"

    def __init__(self, writer: Writer, factory: ExecutorFactory, node: str, lease_seconds: float) -> None:
        self._writer = writer
        self._factory = factory
        self.worker = Worker(f"{node}/{secrets.token_hex(4)}", node, timedelta(seconds=lease_seconds))
        self._turn = lease_seconds / RENEWALS_PER_LEASE
        self._renewed_at = -self._turn
        self.patience = lease_seconds
        self._wake = asyncio.Event()
        self._is_due = False
        self._looked_at = -self._turn
        self._routed: set[tuple[int | None, int | None]] = set()
        """Attempts of jobs that were routed, and that this process may not have claimed in the same commit."""
        self._found_jobs = True
        """Whether the last claim did."""
        self._runs: dict[int, tuple[JobRun, asyncio.Task[None]]] = {}
        self._cleaning: set[asyncio.Task[None]] = set()
        self._slots: dict[int, Slots] = {}
        writer.claim_for(self.worker, self.start_runs)

    @property
    def running(self) -> set[int]:
        """The ids of the jobs that this process drives."""
        return set(self._runs)

    def wake(self) -> None:
        """Claim jobs now."""
        self._is_due = True
        self._wake.set()

    def on_events(self, events: Sequence[AnyEvent]) -> None:
        """Notice committed events, of this process or of others."""
        for event in events:
            if event.kind == EventKind.JOB_ROUTED:
                self._routed.add((event.job_id, event.attempt))
                self._wake.set()
            elif event.kind == EventKind.JOB_CANCEL_REQUESTED:
                self._cancel(event.job_id)
            elif event.kind in HOST_CHANGES:
                self._on_host_change(event)

    def _cancel(self, job_id: int | None) -> None:
        if job_id in self._runs:
            self._runs[job_id][0].cancel()
        else:
            # It may have been claimed in the same commit, before its run exists: renewing the leases shows it.
            self._renewed_at = -self._turn
            self._wake.set()

    def _on_host_change(self, event: AnyEvent) -> None:
        if event.kind == EventKind.HOST_UPDATED and event.host_id is not None:
            # The limit of launches may have changed.
            self._slots.pop(event.host_id, None)
            return
        for run, task in self._runs.values():
            if run.host_id == event.host_id and event.kind == EventKind.HOST_LOST:
                # The job runs again elsewhere, and the run would wait for the lost host forever.
                task.cancel()
            elif run.host_id == event.host_id:
                run.try_now()

    async def run(self, beat: Callable[[], None]) -> None:
        self._is_due = True
        while True:
            beat()
            if await self._must_claim():
                await self._claim()
            if self._renewed_at + self._turn <= time.monotonic():
                began = time.monotonic()
                await self._renew()
                self._renewed_at = began
            if not self._is_due:
                next_turn = min(self._looked_at, self._renewed_at) + self._turn
                await wait_for(self._wake, max(next_turn - time.monotonic(), 0))

    async def _must_claim(self) -> bool:
        """Whether there may be jobs to claim; most are claimed in the commit that routes them."""
        if self._looked_at + self._turn <= time.monotonic():
            self._is_due = True
        if self._routed:
            # The event log may be ahead of the commit's own answer, which starts the runs.
            await self._writer.settled()
            routed, self._routed = self._routed, set()
            others = any(not self._runs_attempt(job_id, attempt) for job_id, attempt in routed)
            if others and not self._is_due:
                # Another process may have claimed them, and looking takes less than a transaction.
                self._is_due = self._found_jobs or await threads.read(leases.any_to_claim, self.worker)
        return self._is_due

    def _runs_attempt(self, job_id: int | None, attempt: int | None) -> bool:
        return job_id in self._runs and self._runs[job_id][0].attempt == attempt

    async def _claim(self) -> None:
        self._is_due, self._looked_at = False, time.monotonic()
        claimed = await self._writer.write(leases.claim, self.worker)
        self._found_jobs = bool(claimed)
        for begin in range(0, len(claimed), STARTED_AT_ONCE):
            self.start_runs(claimed[begin : begin + STARTED_AT_ONCE])
            await asyncio.sleep(0)
        self._is_due |= len(claimed) == leases.CLAIM_AT_ONCE

    async def _renew(self) -> None:
        # Only the leases of live runs: the lease of a run that has failed must expire.
        runs = {run.fence: (run, task) for run, task in self._runs.values()}
        renewed = await self._writer.write(leases.renew, (self.worker, list(runs)))
        for fence, (run, task) in runs.items():
            if fence.job_id in renewed.cancelled:
                run.cancel()
            elif fence.job_id in renewed.lost and not run.ended:
                # Another worker holds the job, so this run can write nothing more.
                task.cancel()

    async def stop(self) -> None:
        """Give up all jobs as they are: their containers go on, and the next worker takes them over."""
        # Jobs that are claimed from here on are given up with the others, and never started.
        self._writer.claim_for(None, lambda _: None)
        await cancel_and_wait(*self._cleaning, *(task for _, task in self._runs.values()))
        await self._writer.write(leases.expire, self.worker.owner)

    def start_runs(self, claimed: Sequence[Claimed]) -> None:
        """Start a run for each claimed job."""
        for job, fence in claimed:
            self._start_run(job, fence)

    def _start_run(self, job: ContainerJob, fence: Fence) -> None:
        if job.pk in self._runs:
            before, task = self._runs[job.pk]
            if before.ended:
                # The run of the attempt before, which only has to remove its container.
                self._cleaning.add(task)
                task.add_done_callback(self._cleaning.discard)
            else:
                # This process's own lease expired unnoticed; the old claim can write nothing more.
                task.cancel()
        assert job.host is not None  # noqa: S101 - a claimed job has a host
        slots = self._slots.setdefault(job.host.pk, Slots(self._factory.max_launches(job.host)))
        run = JobRun(job, fence, self._writer, self._factory, slots)
        task = asyncio.create_task(run.drive(), name=f"job {job.pk}")
        self._runs[job.pk] = (run, task)
        self._count_runs()
        task.add_done_callback(lambda done: self._on_end(job.pk, done))

    def _on_end(self, job_id: int, task: asyncio.Task[None]) -> None:
        if self._runs.get(job_id, (None, None))[1] is task:
            del self._runs[job_id]
            self._count_runs()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its lease expires, and the next claim takes the job up again.
            logger.error("the run of job %s failed", job_id, exc_info=error, extra={"job": job_id})

    def _count_runs(self) -> None:
        with metrics.never_failing():
            metrics.RUNS.set(len(self._runs))
