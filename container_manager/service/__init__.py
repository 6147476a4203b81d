"""The use cases: everything that the API, the command line and other Django code may call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from container_manager.models import ExecutorHost
from container_manager.process import Process
from container_manager.service.decisions import Decisions
from container_manager.service.events import Events
from container_manager.service.hosts import Hosts
from container_manager.service.jobs import Jobs
from container_manager.service.statistics import Statistics
from container_manager.service.tokens import Tokens
from container_manager.store import threads
from container_manager.store.health import HealthReport
from container_manager.store.installation import identify

__all__ = ["Running", "Service", "current", "probe_all_hosts", "running"]


class Service:
    """The use cases of one process, by subject."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.hosts = Hosts(process)
        self.jobs = Jobs(process)
        self.decisions = Decisions()
        self.events = Events(process)
        self.statistics = Statistics(process)
        self.tokens = Tokens(process)


class Running(NamedTuple):
    """A service and the event loop on which it runs."""

    service: Service
    loop: asyncio.AbstractEventLoop


_running: list[Running] = []


@asynccontextmanager
async def running(*, runs_jobs: bool = True) -> AsyncIterator[Service]:
    """A running service, from its start to its orderly stop. With `runs_jobs` False it runs no jobs."""
    process = Process(await threads.read(identify), runs_jobs=runs_jobs)
    service = Service(process)
    here = Running(service, asyncio.get_running_loop())
    try:
        await process.start()
        _running.append(here)
        yield service
        await service.tokens.close()
    finally:
        if here in _running:
            _running.remove(here)
        await process.stop()


def current() -> Running | None:
    """The service that runs in this process; None when there is none."""
    return _running[-1] if _running else None


async def probe_all_hosts() -> list[tuple[ExecutorHost, HealthReport | None]]:
    """Probe the hosts of this node without a running service; see `Hosts.probe_all`."""
    process = Process(await threads.read(identify))
    try:
        return await Hosts(process).probe_all()
    finally:
        await process.factory.aclose()
