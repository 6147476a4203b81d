"""One process of the service: its writer, event log, executors and control loops; starting, draining and stopping."""

import asyncio
import logging
import time
from collections.abc import Sequence

from container_manager import configuration
from container_manager.aio import cancel_and_wait
from container_manager.control.dispatcher import Dispatcher
from container_manager.control.fleet_check import FleetCheck
from container_manager.control.health import HealthLoop
from container_manager.control.host_usage import HostUsage
from container_manager.control.housekeeping import Housekeeping
from container_manager.control.leader import Leader
from container_manager.control.outbox import Outbox
from container_manager.control.reconciler import Reconciler
from container_manager.control.scheduler import Scheduler
from container_manager.control.signals import Signals
from container_manager.control.statistics import Statistics
from container_manager.control.supervisor import Loop, Supervisor
from container_manager.database import connection
from container_manager.events.log import EventLog
from container_manager.executors.factory import ExecutorFactory
from container_manager.observability import metrics
from container_manager.store import hosts as host_store
from container_manager.store import leadership, leases, listen, threads
from container_manager.store.transaction import NewEvent
from container_manager.store.writer import Writer

logger = logging.getLogger(__name__)

COMPLETE_WITHIN_SECONDS = 3.0
READY_WITHIN_SECONDS = 2.0
SAMPLE_SECONDS = 0.5


class Process:
    """The parts of one process and their wiring. With `runs_jobs` False it runs no jobs and has no control loops.

    The writer and the event log are under a supervisor of their own: they start first and stop last, because the
    control loops write while they stop.
    """

    def __init__(self, instance: str, *, runs_jobs: bool = True) -> None:
        environment = configuration.current()
        self.writer = Writer()
        self.factory = ExecutorFactory(self.writer.write, instance)
        self.events = EventLog(environment.listen_url or listen.default_url())
        # A process that runs no jobs does not use the engines of any node either.
        self.nodes = {"", environment.node} if runs_jobs else {""}
        self.outbox = Outbox(self.writer)
        self._core = Supervisor([self.writer, self.events, FleetCheck()])
        self._loops = Supervisor(self._control_loops() if runs_jobs else [])
        self._sampling: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[bool] | None = None
        self._is_stopping = False
        self.writer.on_commit(self._on_commit)

    @property
    def loops(self) -> Sequence[Loop]:
        """All supervised loops of this process."""
        return [*self._core.loops, *self._loops.loops]

    def _control_loops(self) -> list[Loop]:
        environment = configuration.current()
        node, writer, factory = environment.node, self.writer, self.factory
        leader = Leader(writer, node, environment.lease_seconds)
        scheduler = Scheduler(writer, leader)
        dispatcher = Dispatcher(writer, factory, node, environment.lease_seconds)
        reconciler = Reconciler(writer, factory, leader, environment.orphan_grace_seconds)
        health = HealthLoop(writer, factory, leader, environment.probe_interval_seconds)
        # With PostgreSQL there may be other processes, whose commits come through the event log.
        subscribe = self.events.on_read if connection.vendor == "postgresql" else writer.on_commit
        counting = Statistics(writer, leader)
        usage = HostUsage(writer, leader)
        signals = Signals(writer, environment.lease_seconds)
        for loop in (scheduler, dispatcher, health, reconciler, counting, usage, signals):
            subscribe(loop.on_events)
        slow: list[Loop] = [counting, usage, signals, Housekeeping(writer, leader, environment), self.outbox]
        return [scheduler, dispatcher, leader, health, reconciler, *slow]

    async def start(self) -> None:
        """Start writing, reading events and, if it runs jobs, the control loops."""
        self.writer.open()
        await self.events.open()
        await self._core.start()
        if connection.vendor == "sqlite":
            # SQLite serves one process, and this one has just started: whatever held a lease is gone.
            await self.writer.write(leases.expire, "")
            await self.writer.write(leadership.resign, "")
        await self._loops.start()
        self._sampling = asyncio.create_task(_sample_loop_lag(), name="event loop lag")

    async def drain(self, seconds: float) -> None:
        """Report for `seconds` that the process is not ready, so that proxies stop sending; then end subscriptions.

        Raises:
            TimeoutError: some subscriptions did not complete in time.
        """
        self._is_stopping = True
        await asyncio.sleep(seconds)
        self.events.drain()
        async with asyncio.timeout(COMPLETE_WITHIN_SECONDS):
            await self.events.drained()

    async def stop(self) -> None:
        """Give up jobs and duties, commit what is waiting, and close connections."""
        await cancel_and_wait(self._sampling, self._asking)
        await self._loops.stop()
        await self._core.stop()
        await self.factory.aclose()

    async def problems(self) -> list[str]:
        """Why this process is not ready, in sentences; empty when it is."""
        found = [f"The {name} loop has not ticked lately." for name in (*self._core.stalled(), *self._loops.stalled())]
        if self._is_stopping:
            found.append("The service is stopping.")
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(_database_answers(), name="asking the database")
        # Shared, because probes need no token: many of them at once are one question.
        if not await asyncio.shield(self._asking):
            found.append("The database does not answer.")
        return found

    def _on_commit(self, events: Sequence[NewEvent]) -> None:
        if events:
            self.events.wake()


async def _database_answers() -> bool:
    try:
        async with asyncio.timeout(READY_WITHIN_SECONDS):
            await threads.read_briefly(host_store.any_exist)
    except Exception as error:  # noqa: BLE001 - without this query no request can be answered
        logger.warning("the database does not answer: %r", error)
        return False
    return True


async def _sample_loop_lag() -> None:
    while True:
        due = time.perf_counter() + SAMPLE_SECONDS
        await asyncio.sleep(SAMPLE_SECONDS)
        with metrics.never_failing():
            metrics.LOOP_LAG_SECONDS.observe(max(time.perf_counter() - due, 0))
