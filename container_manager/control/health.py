"""Probes hosts all the time. Each result is written when it comes, so that a host that hangs delays no other."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

from django.db import Error as DatabaseError
from django.db.models import Q

from container_manager.aio import cancel_and_wait, start_detached, wait_for
from container_manager.control.leader import FLEET, Leader
from container_manager.domain.kinds import EventKind
from container_manager.errors import Unavailable
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import ExecutorHost
from container_manager.store import health as health_store
from container_manager.store import hosts as host_store
from container_manager.store import threads
from container_manager.store.events import AnyEvent
from container_manager.store.writer import Writer

logger = logging.getLogger(__name__)

JITTER = 0.1
CHANGED = frozenset({EventKind.HOST_CREATED, EventKind.HOST_UPDATED})


class HealthLoop:
    """One turn per interval, jittered. A host whose probe is still running is not probed again."""

    name = "health"

    def __init__(self, writer: Writer, factory: ExecutorFactory, leader: Leader, interval: float) -> None:
        self._writer = writer
        self._factory = factory
        self._leader = leader
        self._wake = asyncio.Event()
        leader.on_election(self._wake)
        self._interval = timedelta(seconds=interval)
        self._changed: set[int] = set()
        self._probing: dict[int, asyncio.Task[object]] = {}
        self.patience = interval * 3

    def on_events(self, events: Sequence[AnyEvent]) -> None:
        """Notice committed events: the process that created a host may not be able to reach it."""
        if changed := {event.host_id for event in events if event.kind in CHANGED and event.host_id is not None}:
            self._changed |= changed
            self._wake.set()

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            began = time.monotonic()
            if nodes := self._leader.nodes:
                await self._probe_hosts(nodes)
            turn = self._interval.total_seconds() * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load
            await self._probe_changed_until(began + turn)

    async def _probe_changed_until(self, moment: float) -> None:
        """Probe hosts that are changed, and no others: else each change would count failures of the whole fleet.

        Returns at that moment, by the monotonic clock, or when this process has been elected.
        """
        while await wait_for(self._wake, max(moment - time.monotonic(), 0)):
            changed, self._changed = self._changed, set()
            if not changed:
                return
            # A probe that has begun is one of the earlier config.
            await cancel_and_wait(*(self._probing.get(host_id) for host_id in changed))
            await self._begin_probes(Q(node__in=self._leader.nodes, pk__in=changed))

    async def stop(self) -> None:
        """Cancel the probes."""
        await cancel_and_wait(*self._probing.values())

    async def _probe_hosts(self, nodes: Collection[str]) -> None:
        await self._begin_probes(Q(node__in=nodes))
        if FLEET in nodes:
            stale = health_store.oldest_fresh(self._interval)
            if await threads.read(lambda: health_store.stale_since(stale).exists()):
                await self._writer.write(health_store.expire_stale, stale)

    async def _begin_probes(self, where: Q) -> None:
        hosts = await threads.read(host_store.bare, where)
        self._probing = {host_id: task for host_id, task in self._probing.items() if not task.done()}
        for host in hosts:
            if host.pk not in self._probing:
                self._probing[host.pk] = start_detached(self._probe(host), f"probe of host {host.name}")

    async def _probe(self, host: ExecutorHost) -> None:
        try:
            await self._writer.write(health_store.record_reports, await self._factory.probe(host))
        except (DatabaseError, Unavailable) as error:
            logger.warning(
                "the health of host %s could not be written: %s", host.name, error, extra={"host": host.name}
            )
