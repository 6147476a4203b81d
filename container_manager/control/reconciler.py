"""Compares the executions on hosts with what jobs need, and removes those that no job needs."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from django.db.models import Q

from container_manager import configuration
from container_manager.aio import cancel_and_wait, start_detached, wait_for
from container_manager.control.leader import Leader
from container_manager.domain.kinds import EventKind
from container_manager.executors.base import ContainerExecutor, ExecutionState, OwnedExecution
from container_manager.executors.exceptions import ExecutorError
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import ExecutorHost
from container_manager.store import hosts as host_store
from container_manager.store import leftovers, threads
from container_manager.store.events import AnyEvent
from container_manager.store.writer import Writer

logger = logging.getLogger(__name__)

SWEEP_EVERY = 60.0
JITTER = 0.1


class Reconciler:
    """Sweeps every host at the start, when its health changes, and at least every minute.

    Executions of jobs that are under way are left to their runs, which adopt them or read their output. Others belong
    to an attempt that was given up or is driven under another claim, or to a job that the database does not know.
    These are removed once they have been seen for the grace time.
    """

    name = "reconciler"

    def __init__(self, writer: Writer, factory: ExecutorFactory, leader: Leader, grace: float) -> None:
        self._writer = writer
        self._factory = factory
        self._leader = leader
        self._grace = grace
        self._turn = min(SWEEP_EVERY, grace)
        self.patience = self._turn * 3 + 30
        self._first_seen: dict[tuple[int, str], float] = {}
        self._sweeping: dict[int, asyncio.Task[object]] = {}
        self._changed: set[int] = set()
        self._again: set[int] = set()
        self._wake = asyncio.Event()
        leader.on_election(self._wake)

    def on_events(self, events: Sequence[AnyEvent]) -> None:
        """Notice committed events, of this process or of others."""
        back = {event.host_id for event in events if event.kind == EventKind.HOST_HEALTH_CHANGED and event.host_id}
        if back:
            self._changed |= back
            self._wake.set()

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            self._changed.clear()
            nodes = self._leader.nodes
            await self._sweep_hosts(Q())
            ends = time.monotonic() + self._turn * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load
            while await wait_for(self._wake, max(ends - time.monotonic(), 0)):
                if self._leader.nodes - nodes:
                    break
                changed, self._changed = self._changed, set()
                await self._sweep_hosts(Q(pk__in=changed))

    async def stop(self) -> None:
        """Cancel the sweeps."""
        await cancel_and_wait(*self._sweeping.values())

    async def _sweep_hosts(self, where: Q) -> None:
        for host in await threads.read(host_store.bare, where & Q(node__in=self._leader.nodes)):
            if host.pk in self._sweeping:
                self._again.add(host.pk)
            else:
                task = start_detached(self.sweep(host), f"sweep of host {host.name}")
                self._sweeping[host.pk] = task
                task.add_done_callback(partial(self._swept, host.pk))

    def _swept(self, host_id: int, _: asyncio.Task[object]) -> None:
        del self._sweeping[host_id]
        if host_id in self._again:
            self._again.discard(host_id)
            self._changed.add(host_id)
            self._wake.set()

    async def sweep(self, host: ExecutorHost) -> None:
        """Remove the host's executions that no job has needed for the grace time. Errors are logged."""
        try:
            executor = self._factory.get_executor(host)
            # The host is listed before the database is read, so that an execution created in between is not listed.
            owned = await executor.list_owned()
            needed = await threads.read(leftovers.needed, owned)
            unneeded = [execution for execution in owned if execution.id not in needed]
            for execution in self._overdue(host.pk, unneeded):
                await self._remove(executor, host, execution)
        except ExecutorError as error:
            logger.info("host %s could not be swept: %s", host.name, error, extra={"host": host.name})
        except Exception:
            logger.exception("the sweep of host %s failed", host.name, extra={"host": host.name})

    def _overdue(self, host_id: int, unneeded: Sequence[OwnedExecution]) -> list[OwnedExecution]:
        now = time.monotonic()
        first = {(host_id, execution.id): self._first_seen.get((host_id, execution.id), now) for execution in unneeded}
        self._first_seen = {key: at for key, at in self._first_seen.items() if key[0] != host_id} | first
        return [execution for execution in unneeded if now - first[host_id, execution.id] >= self._grace]

    async def _remove(self, executor: ContainerExecutor, host: ExecutorHost, owned: OwnedExecution) -> None:
        if owned.state is ExecutionState.RUNNING:
            await executor.stop(owned.as_execution(), configuration.current().stop_grace_seconds)
        await executor.remove(owned.id)
        logger.warning(
            "host %s: removed %s of job %s, attempt %s", host.name, owned.id, owned.job_id, owned.attempt,
            extra={"host": host.name, "job": owned.job_id, "attempt": owned.attempt},
        )  # fmt: skip
        await self._writer.write(leftovers.swept, (host, owned))
