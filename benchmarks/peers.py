"""The service beside the least that others do, in the same minutes: a bare ASGI answer, a bare mutation, pgbench.

    python -m benchmarks.peers [--database-url URL] [--hosts 100] [--requests 2000] [--rounds 3]

Each round measures all of them in turn, and the rows have the medians of the rounds. `CPU ms` is the CPU time of the
server for one request. The clients are Python's and share the machine, so rates say less than CPU times. pgbench runs
on PostgreSQL alone: a transaction of three statements, as in benchmarks/execution.py.
"""

import argparse
import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiohttp

from benchmarks import execution, fleet
from benchmarks.over_http import INSERT, SUBMIT_JOB, cpu_seconds, post, serving

HOSTS = """{ hosts(first: 50) { edges { node {
    id name region executorType isActive isDraining routingWeight engine createdAt health { status latencyMs error }
    capacity { maxConcurrentJobs runningJobs availableSlots } } } } }"""
JOB = {"input": {"image": "busybox", "command": ["true"], "memoryLimitMb": 64, "cpuLimit": 0.1}}
WARM_UP = 20
ANSWER = b'{"data":{"ok":true}}'


class Load(NamedTuple):
    """Requests of one kind, and what answers them."""

    server: str
    query: str
    variables: dict[str, Any]
    clients: int


LOADS = {
    "bare ASGI answer, 16 clients": Load("bare ASGI", "", {}, 16),
    "bare insert mutation, 16 clients": Load("bare mutation", INSERT, {"target": "x"}, 16),
    "submitJob, 16 clients": Load("service", SUBMIT_JOB, JOB, 16),
    "submitJob, 1 client": Load("service", SUBMIT_JOB, JOB, 1),
    "hosts(first: 50), 15 fields, 16 clients": Load("service", HOSTS, {}, 16),
}
COMMANDS = {
    "bare ASGI": ("-m", "uvicorn", "benchmarks.peers:answer", "--port", "0", "--no-access-log"),
    "bare mutation": ("-m", "uvicorn", "benchmarks.bare:application", "--port", "0", "--no-access-log"),
    "service": ("-m", "container_manager", "serve", "--port", "0", "--no-auth"),
}


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """The bare ASGI application: it reads the request and answers it."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


@contextmanager
def started(server: str, hosts: int, role: str = "all") -> Iterator[tuple[str, int]]:
    command = COMMANDS[server]
    if server == "service":
        fleet.empty()
        fleet.make_hosts(hosts, slots=100_000)
        fleet.analyze()
        command += ("--role", role)
    with serving(*command) as found:
        yield found


async def measure(url: str, pid: int, load: Load, requests: int) -> dict[str, float]:
    taken: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=load.clients)) as session:

        async def client(count: int) -> None:
            for _ in range(count):
                began = time.perf_counter()
                await post(session, url, load.query, **load.variables)
                taken.append((time.perf_counter() - began) * 1000)

        await asyncio.gather(*(client(WARM_UP) for _ in range(load.clients)))
        taken.clear()
        used, began = cpu_seconds(pid), time.perf_counter()
        await asyncio.gather(*(client(requests // load.clients) for _ in range(load.clients)))
        took, used = time.perf_counter() - began, cpu_seconds(pid) - used
    return {"per s": len(taken) / took, "CPU ms": used * 1000 / len(taken), "p50 ms": statistics.median(taken)}


def main(arguments: argparse.Namespace) -> None:
    table = fleet.Table(postgresql=fleet.prepare(arguments.database_url) == "postgresql")
    found: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for name, load in LOADS.items():
            # With PostgreSQL, other processes run the jobs.
            with started(load.server, arguments.hosts, "api" if table.postgresql else "all") as (url, pid):
                found[name].append(asyncio.run(measure(url, pid, load, arguments.requests)))
        if table.postgresql and (rate := execution.reference_rate(arguments.database_url)) is not None:
            found["pgbench's transaction, 16 clients"].append({"per s": rate})
    medians = {
        name: {figure: statistics.median(one[figure] for one in rounds) for figure in rounds[0]}
        for name, rounds in found.items()
    }
    bare = medians["bare ASGI answer, 16 clients"]["CPU ms"]
    for name, figures in medians.items():
        times = {"times bare": figures["CPU ms"] / bare} if "CPU ms" in figures and bare else {}
        table.row(name, **figures, **times)
    if arguments.json:
        table.as_json(arguments.json)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default="", help="PostgreSQL; otherwise a SQLite file of its own")
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default="", help="a file for the figures, or - for stdout")
    main(parser.parse_args())
