"""Probes every host all the time; each result is written as it comes, so that a hanging host holds up nobody's."""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from container_manager.control.leader import FLEET, Leader
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import EventKind, ExecutorHost
from container_manager.store import hosts as host_store
from container_manager.store import threads
from container_manager.store.events import Told
from container_manager.store.writer import Writer
from container_manager.waiting import wait_for

JITTER = 0.1
FRESH_INTERVALS = 3
"""For how many intervals a probe's result counts."""


CHANGED = frozenset({EventKind.HOST_CREATED, EventKind.HOST_UPDATED})


class HealthLoop:
    """One turn an interval, jittered; a host whose probe is still under way is not probed again."""

    name = "health"

    def __init__(self, writer: Writer, factory: ExecutorFactory, leader: Leader, interval: float) -> None:
        self._writer = writer
        self._factory = factory
        self._leader = leader
        self._wake = asyncio.Event()
        leader.on_election(self._wake)
        self._interval = timedelta(seconds=interval)
        self._probing: dict[int, asyncio.Task[None]] = {}
        self.patience = interval * 3

    def heard(self, events: Sequence[Told]) -> None:
        """Take notice of what was committed: whoever has made a host may not have reached it."""
        if any(event.kind in CHANGED for event in events):
            self._wake.set()

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            began = time.monotonic()
            if nodes := self._leader.nodes:
                await self._look_after(nodes)
            turn = self._interval.total_seconds() * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load
            await wait_for(self._wake, max(began + turn - time.monotonic(), 0))

    async def _look_after(self, nodes: Collection[str]) -> None:
        for host in await threads.read(host_store.bare, Q(node__in=nodes)):
            if host.pk not in self._probing:
                self._probe(host)
        if FLEET in nodes:
            stale = timezone.now() - FRESH_INTERVALS * self._interval
            if await threads.read(host_store.any_stale, stale):
                await self._writer.write(host_store.forget_stale, stale)

    async def stop(self) -> None:
        for task in self._probing.values():
            task.cancel()
        await asyncio.gather(*self._probing.values(), return_exceptions=True)

    def _probe(self, host: ExecutorHost) -> None:
        async def probe() -> None:
            try:
                await self._writer.write(host_store.record_health, await self._factory.probe(host))
            finally:
                self._probing.pop(host.pk, None)

        self._probing[host.pk] = asyncio.create_task(probe(), name=f"probe {host.name}")
