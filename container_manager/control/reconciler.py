"""Compares what hosts have with what jobs need, and removes what nobody needs any more."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from django.conf import settings
from django.db.models import Q

from container_manager.control.leader import Leader
from container_manager.executors.base import ContainerExecutor, ExecutionState, OwnedExecution
from container_manager.executors.exceptions import ExecutorError
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import EventKind, ExecutorHost
from container_manager.store import hosts as host_store
from container_manager.store import leftovers, threads
from container_manager.store.events import Told
from container_manager.store.writer import Writer
from container_manager.waiting import wait_for

logger = logging.getLogger(__name__)

SWEEP_EVERY = 60.0
JITTER = 0.1


class Reconciler:
    """Sweeps every host at the start, when it comes back, and every minute.

    What runs or has ended for a job is adopted and harvested by its run, whose lease leads there. What is left has
    no job that needs it: an attempt given up, a late owner's, or one that the database does not know. It is removed
    once it has been seen like that for the grace time.
    """

    name = "reconciler"

    def __init__(self, writer: Writer, factory: ExecutorFactory, leader: Leader, grace: float) -> None:
        self._writer = writer
        self._factory = factory
        self._leader = leader
        self._grace = grace
        self._turn = min(SWEEP_EVERY, grace)
        self.patience = self._turn * 3 + 30
        self._seen: dict[tuple[int, str], float] = {}
        self._sweeping: dict[int, asyncio.Task[None]] = {}
        self._back: set[int] = set()
        self._again: set[int] = set()
        self._wake = asyncio.Event()
        leader.on_election(self._wake)

    def heard(self, events: Sequence[Told]) -> None:
        """Take notice of what was committed, here or in another process."""
        back = {event.host_id for event in events if event.kind == EventKind.HOST_HEALTH_CHANGED and event.host_id}
        if back:
            self._back |= back
            self._wake.set()

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            self._back.clear()
            nodes = self._leader.nodes
            await self._sweep_all(Q())
            ends = time.monotonic() + self._turn * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load
            while await wait_for(self._wake, max(ends - time.monotonic(), 0)):
                if self._leader.nodes - nodes:
                    break
                back, self._back = self._back, set()
                await self._sweep_all(Q(pk__in=back))

    async def stop(self) -> None:
        for task in self._sweeping.values():
            task.cancel()
        await asyncio.gather(*self._sweeping.values(), return_exceptions=True)

    async def _sweep_all(self, where: Q) -> None:
        for host in await threads.read(host_store.bare, where & Q(node__in=self._leader.nodes)):
            if host.pk in self._sweeping:
                self._again.add(host.pk)
            else:
                task = asyncio.create_task(self._sweep(host), name=f"sweep {host.name}")
                self._sweeping[host.pk] = task
                task.add_done_callback(partial(self._swept, host.pk))

    def _swept(self, host_id: int, _: asyncio.Task[None]) -> None:
        del self._sweeping[host_id]
        if host_id in self._again:
            self._again.discard(host_id)
            self._back.add(host_id)
            self._wake.set()

    async def _sweep(self, host: ExecutorHost) -> None:
        try:
            executor = self._factory.get_executor(host)
            # Listed first, read second: what is created in between is not in the list.
            owned = await executor.list_owned()
            needed = await threads.read(leftovers.needed, owned)
            unneeded = [execution for execution in owned if execution.id not in needed]
            for execution in self._overdue(host.pk, unneeded):
                await self._remove(executor, host, execution)
        except ExecutorError as error:
            logger.info("sweeping host %s: %s", host.name, error)
        except Exception:
            # One host's trouble must not end the sweeping of the others.
            logger.exception("sweeping host %s", host.name)

    def _overdue(self, host_id: int, unneeded: Sequence[OwnedExecution]) -> list[OwnedExecution]:
        now = time.monotonic()
        first = {(host_id, execution.id): self._seen.get((host_id, execution.id), now) for execution in unneeded}
        self._seen = {key: at for key, at in self._seen.items() if key[0] != host_id} | first
        return [execution for execution in unneeded if now - first[host_id, execution.id] >= self._grace]

    async def _remove(self, executor: ContainerExecutor, host: ExecutorHost, owned: OwnedExecution) -> None:
        if owned.state is ExecutionState.RUNNING:
            await executor.stop(owned.as_execution(), settings.CONTAINER_MANAGER.stop_grace_seconds)
        await executor.remove(owned.id)
        logger.warning("host %s: removed %s of job %s, attempt %s", host.name, owned.id, owned.job_id, owned.attempt)
        await self._writer.write(leftovers.swept, (host, owned))
