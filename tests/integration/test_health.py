"""Probing hosts: which, when, and what a result counts for."""

import asyncio
from unittest.mock import create_autospec

import pytest
from asgiref.sync import sync_to_async

from container_manager import clock
from container_manager.control.health import HealthLoop
from container_manager.control.leader import Leader
from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import EventKind
from container_manager.executors.exceptions import ExecutorClosedError
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import ExecutorHost
from container_manager.store.events import Event
from container_manager.store.health import HealthReport
from container_manager.store.writer import Writer
from tests.api import SIMULATED, UPDATE_HOST
from tests.client import CREATE_HOST, Api
from tests.eventually import eventually
from tests.factories import ExecutorHostFactory
from tests.loops import running_loop

make_host = sync_to_async(ExecutorHostFactory)


class Probes(ExecutorFactory):
    """A stand-in for the factory that remembers what was probed."""

    def __init__(self) -> None:
        super().__init__()
        self.of: list[str] = []
        self.hang = asyncio.Event()
        self.cancelled: list[str] = []

    async def probe(self, host: ExecutorHost) -> HealthReport:
        self.of.append(host.name)
        if host.config.get("hang"):
            try:
                await self.hang.wait()
            except asyncio.CancelledError:
                self.cancelled.append(host.name)
                raise
        return HealthReport(host.pk, HealthStatus.HEALTHY, clock.now(), 1.0)


def changed(host: ExecutorHost, kind: EventKind = EventKind.HOST_UPDATED) -> Event:
    return create_autospec(Event, instance=True, kind=kind, host_id=host.pk)


async def test_a_change_probes_that_host_and_no_other(writer: Writer) -> None:
    hosts = [await make_host(node="") for _ in range(3)]
    factory = Probes()
    leader = Leader(writer, "test-node", 60)
    loop = HealthLoop(writer, factory, leader, 3600)
    async with running_loop(leader), running_loop(loop):
        await eventually(lambda: len(set(factory.of)) == 3, 10)
        factory.of.clear()
        for _ in range(3):
            loop.on_events([changed(hosts[1])])
            await asyncio.sleep(0)
        loop.on_events([changed(hosts[0], EventKind.HOST_DRAINED)])
        await eventually(lambda: factory.of, 10)
    assert set(factory.of) == {hosts[1].name}


async def test_a_probe_of_an_earlier_config_ends_with_the_change(writer: Writer) -> None:
    host = await make_host(node="", config={"hang": True})
    factory = Probes()
    leader = Leader(writer, "test-node", 60)
    loop = HealthLoop(writer, factory, leader, 3600)
    async with running_loop(leader), running_loop(loop):
        await eventually(lambda: factory.of, 10)
        await ExecutorHost.objects.filter(pk=host.pk).aupdate(config={})
        loop.on_events([changed(host)])
        await eventually(lambda: len(factory.of) == 2, 10)
        assert factory.cancelled == [host.name]


async def test_a_probe_that_a_change_has_cut_off_counts_for_nothing(
    admin: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await admin(CREATE_HOST, input=SIMULATED)
    monkeypatch.setattr(
        "container_manager.executors.simulated.SimulatedExecutor.health_check",
        lambda _: (_ for _ in ()).throw(ExecutorClosedError("its settings were changed")),
    )
    await admin("mutation { checkHealth { name } }")
    query = "query($id: ID!) { host(id: $id) { health { status error consecutiveFailures } } }"
    health = (await admin(query, id=host["id"]))["health"]
    assert health == {"status": "HEALTHY", "error": None, "consecutiveFailures": 0}


async def test_a_config_that_this_process_cannot_try_makes_the_health_unknown(admin: Api) -> None:
    config = {"url": "unix:///x", "node": "elsewhere"}
    host = await admin(CREATE_HOST, input={"name": "far", "executorType": "DOCKER", "config": config})
    await ExecutorHost.objects.all().aupdate(health_status="healthy")
    changed = await admin(UPDATE_HOST, id=host["id"], input={"config": {**config, "url": "unix:///y"}})
    assert changed["health"]["status"] == "UNKNOWN"
