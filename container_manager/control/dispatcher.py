"""Claims routed jobs and drives each to its end, in a task of its own."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from container_manager import metrics
from container_manager.control.run import JobRun
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import ContainerJob, EventKind
from container_manager.store import dispatch
from container_manager.store.events import Told
from container_manager.store.transaction import Claimed, Fence, Worker
from container_manager.store.writer import Writer
from container_manager.waiting import wait_for

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 4
DRIVEN_AT_ONCE = 50
"""Runs that are begun in one turn of the event loop, so that others have theirs."""

_ABOUT_HOSTS = frozenset({EventKind.HOST_UPDATED, EventKind.HOST_HEALTH_CHANGED, EventKind.HOST_LOST})


class Dispatcher:
    """Wakes on routed jobs and cancellations; the slow turn in between renews leases and takes over lost ones."""

    name = "dispatcher"

    def __init__(self, writer: Writer, factory: ExecutorFactory, node: str, lease_seconds: float) -> None:
        self._writer = writer
        self._factory = factory
        self._worker = Worker(f"{node}/{secrets.token_hex(4)}", node, timedelta(seconds=lease_seconds))
        self._turn = lease_seconds / RENEWALS_PER_LEASE
        self._renewed = -self._turn
        self.patience = lease_seconds
        self._wake = asyncio.Event()
        self._runs: dict[int, tuple[JobRun, asyncio.Task[None]]] = {}
        self._clearing: set[asyncio.Task[None]] = set()
        self._launching: dict[int, asyncio.Semaphore] = {}
        writer.claim_for(self._worker, self._take)

    def heard(self, events: Sequence[Told]) -> None:
        """Take notice of what was committed, here or in another process."""
        for event in events:
            if event.kind == EventKind.JOB_ROUTED and event.job_id not in self._runs:
                self._wake.set()
            elif event.kind == EventKind.JOB_CANCEL_REQUESTED:
                self._cancel(event.job_id)
            elif event.kind in _ABOUT_HOSTS:
                self._about_host(event)

    def _cancel(self, job_id: int | None) -> None:
        if job_id in self._runs:
            self._runs[job_id][0].cancel()
        else:
            # Perhaps claimed in the same commit, before its run is known here: renewing will tell.
            self._renewed = -self._turn
            self._wake.set()

    def _about_host(self, event: Told) -> None:
        if event.kind == EventKind.HOST_UPDATED and event.host_id is not None:
            self._launching.pop(event.host_id, None)
            return
        for run, task in self._runs.values():
            if run.host_id == event.host_id and event.kind == EventKind.HOST_LOST:
                # Its job runs elsewhere, and it would wait for ever for a word from the host.
                task.cancel()
            elif run.host_id == event.host_id:
                run.look_again()

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            claimed = await self._writer.write(dispatch.claim, self._worker)
            for begin in range(0, len(claimed), DRIVEN_AT_ONCE):
                self._take(claimed[begin : begin + DRIVEN_AT_ONCE])
                await asyncio.sleep(0)
            if len(claimed) == dispatch.CLAIM_AT_ONCE:
                self._wake.set()
            if self._renewed + self._turn <= time.monotonic():
                # Only of runs that live: the lease of one that broke off must end.
                self._renewed = time.monotonic()
                await self._renew()
            await wait_for(self._wake, self._turn)

    async def _renew(self) -> None:
        runs = {run.fence: (run, task) for run, task in self._runs.values()}
        renewed = await self._writer.write(dispatch.renew, (self._worker, list(runs)))
        for fence, (run, task) in runs.items():
            if fence.job_id in renewed.cancelled:
                run.cancel()
            elif fence.job_id in renewed.lost and not run.ended:
                # Somebody else has the job: whatever this run waits for, it could write nothing.
                task.cancel()

    async def stop(self) -> None:
        """Let go of the jobs as they are: their containers run on, and whoever starts next takes them over."""
        # What is claimed from here on is let go with the rest, and never begun.
        self._writer.claim_for(None, lambda _: None)
        tasks = [*self._clearing, *(task for _, task in self._runs.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._writer.write(dispatch.release, self._worker.owner)

    def _take(self, claimed: Sequence[Claimed]) -> None:
        for job, fence in claimed:
            self._drive(job, fence)

    def _drive(self, job: ContainerJob, fence: Fence) -> None:
        if job.pk in self._runs:
            before, task = self._runs[job.pk]
            if before.ended:
                # The attempt before: it is only clearing away.
                self._clearing.add(task)
                task.add_done_callback(self._clearing.discard)
            else:
                # Our own lease ran out unnoticed; the old claim can write nothing any more.
                task.cancel()
        assert job.host is not None  # noqa: S101 - a claimed job has a host
        slots = self._launching.setdefault(job.host.pk, asyncio.Semaphore(self._factory.max_launches(job.host)))
        run = JobRun(job, fence, self._writer, self._factory, slots)
        task = asyncio.create_task(run.drive(), name=f"job {job.pk}")
        self._runs[job.pk] = (run, task)
        metrics.RUNS.set(len(self._runs))
        task.add_done_callback(lambda done: self._ended(job.pk, done))

    def _ended(self, job_id: int, task: asyncio.Task[None]) -> None:
        if self._runs.get(job_id, (None, None))[1] is task:
            del self._runs[job_id]
            metrics.RUNS.set(len(self._runs))
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its lease runs out and the next claim takes it up again.
            logger.error("job %s: the run broke off", job_id, exc_info=error)
