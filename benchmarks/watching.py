"""Many containers watched by one process: how long does its event loop stand still?

    python -m benchmarks.watching [--containers 1000] [--socket /var/run/docker.sock] [--image busybox:test]

Starts that many containers through the service on a temporary database, watches them for a while, and cancels them all.
For each phase: seconds, containers per second, and the longest delay of a timer on the event loop. The delay is given
by the wall clock, which on a busy machine includes the time of other processes, and in CPU time of the loop's thread.
"""

import argparse
import asyncio
import time
from contextlib import asynccontextmanager
from typing import Any

from benchmarks import fleet

TURN = 0.01
AT_ONCE = 100


class Probe:
    """Measures the event loop it runs in."""

    def __init__(self) -> None:
        self.wall = self.processor = 0.0

    async def run(self) -> None:
        while True:
            wall, processor = time.perf_counter(), time.thread_time()
            await asyncio.sleep(TURN)
            self.wall = max(self.wall, time.perf_counter() - wall - TURN)
            self.processor = max(self.processor, time.thread_time() - processor)


@asynccontextmanager
async def phase(table: fleet.Table, name: str, containers: int) -> Any:
    probe = Probe()
    probing = asyncio.create_task(probe.run())
    began, used = time.perf_counter(), time.process_time()
    yield
    took = time.perf_counter() - began
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)
    figures = {"s": took, "containers/s": containers / took, "CPU %": 100 * (time.process_time() - used) / took}
    standstill = {"longest standstill ms": probe.wall * 1000, "of it own CPU ms": probe.processor * 1000}
    table.row(f"{name} {containers} containers", **figures, **standstill)
    assert probe.processor < 0.1, "the event loop was blocked"


async def watch(table: fleet.Table, containers: int, seconds: float, socket: str, image: str) -> None:
    from container_manager.service import running
    from container_manager.specs import read_job
    from container_manager.store import events, threads
    from container_manager.store.transaction import Actor

    me = Actor("benchmark")

    async def until(kind: str) -> None:
        left = containers
        async for event in service.process.events.subscribe(cursor):
            left -= event.kind == kind
            if not left:
                return

    async with running() as service:
        limits = {"max_concurrent_jobs": containers, "max_memory_mb": containers * 64, "max_cpu_cores": containers}
        config = {"url": f"unix://{socket}", "max_launches": 8}
        host = await service.hosts.create({"name": "e", "executor_type": "docker", "config": config, **limits}, me)
        assert host.health_status == "healthy", host.health_error
        values = {"image": image, "command": ["sleep", "86400"], "memory_limit_mb": 16, "cpu_limit": 0.1}
        cursor = await threads.read(events.newest)
        async with phase(table, "starting", containers):
            submitted = await service.jobs.submit([read_job({**values, "timeout_seconds": 86_400})] * containers, me)
            await until("job_started")
        async with phase(table, "watching", containers):
            await asyncio.sleep(seconds)
        async with phase(table, "cancelling", containers):
            for begin in range(0, containers, AT_ONCE):
                await asyncio.gather(*(service.jobs.cancel(job.pk, me) for job in submitted[begin : begin + AT_ONCE]))
            await until("job_cancelled")
        # All of them are gone, and none was run twice.
        assert not await service.process.factory.get_executor(host).list_owned()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--containers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30, help="for which they are watched")
    parser.add_argument("--socket", default="/var/run/docker.sock")
    parser.add_argument("--image", default="busybox:test")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    table = fleet.Table(postgresql=fleet.prepare("") == "postgresql")
    from graphql_api import memory

    memory.tune()
    asyncio.run(watch(table, options.containers, options.seconds, options.socket, options.image))
    if options.json:
        table.as_json(options.json)


if __name__ == "__main__":
    main()
