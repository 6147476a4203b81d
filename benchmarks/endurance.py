"""Does the memory of a process stay the same over a million decisions?

    python -m benchmarks.endurance [--database-url postgresql://…] [--decisions 1000000] [--hosts 100] [--json FILE]

Each job is submitted and decided alone, by 200 clients in the process. No job is run, so the number of active jobs
grows with the decisions. The database is emptied first.
"""

import argparse
import asyncio
import itertools
import os
import time
from typing import Any

from benchmarks import fleet
from benchmarks.over_http import resident

CLIENTS = 200
SHAPES = 8
"""Different requirements, so that classes take turns."""


async def decide(decisions: int) -> dict[str, float]:
    from container_manager.service import running
    from container_manager.specs import read_job
    from container_manager.store.transaction import Actor

    me = Actor("benchmark")
    specs = [read_job({"image": "busybox", "memory_limit_mb": 64 + shape}) for shape in range(SHAPES)]
    numbers = itertools.count()
    early = 0.0

    async with running(runs_jobs=False) as service:

        async def client() -> None:
            nonlocal early
            while (number := next(numbers)) < decisions:
                await service.jobs.submit([specs[number % SHAPES]], me)
                if number == decisions // 20:
                    early = resident(os.getpid())

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        took = time.perf_counter() - began
    return {"per s": decisions / took, "MB after 5 %": early, "MB at the end": resident(os.getpid())}


def main(arguments: Any) -> None:
    table = fleet.Table(postgresql=fleet.prepare(arguments.database_url) == "postgresql")
    fleet.empty()
    fleet.make_hosts(arguments.hosts, slots=arguments.decisions)
    fleet.analyze()
    table.row(f"{arguments.decisions:,} decisions", **asyncio.run(decide(arguments.decisions)))
    if arguments.json:
        table.as_json(arguments.json)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default="", help="PostgreSQL; otherwise a SQLite file of its own")
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--json", default="", help="a file for the figures, or - for stdout")
    main(parser.parse_args())
