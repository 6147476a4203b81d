"""How many jobs per second does one process take from their submission to their committed end?

Simulated hosts whose runs end at once, so that only this service is measured: deciding, claiming, launching, watching,
and every commit and event on the way. The reference, in the same run, is pgbench on the same database: a conditional
UPDATE, an UPDATE and an INSERT per transaction, with 16 clients.

    python -m benchmarks.execution [--database-url postgresql://…] [--jobs 5000] [--hosts 10] [--json FILE]

The database is emptied first. Without --database-url it is a temporary SQLite database, and there is no pgbench.
"""

import argparse
import asyncio
import statistics
import time
from collections import Counter

from benchmarks import fleet, pgbench

BATCH = 500
PAUSE = 0.05
REFERENCE = """
\\set id random(1, 1000)
BEGIN;
UPDATE reference SET state = 'b' WHERE id = :id AND state IN ('a', 'b');
UPDATE reference SET n = n + 1 WHERE id = :id;
INSERT INTO reference_log (id, at) VALUES (:id, now());
END;
"""


async def drain(jobs: int, hosts: int, singles: int) -> tuple[float, list[float]]:
    """Jobs per second from the first submission to the last committed end; and milliseconds to a start at low load."""
    from container_manager.service import running
    from container_manager.specs import read_job
    from container_manager.store import events as event_store
    from container_manager.store import threads
    from container_manager.store.transaction import Actor

    me = Actor("benchmark")
    config = {"accept": "any", "launch_ms": 0, "run_ms": 0}
    async with running() as service:
        for number in range(hosts):
            values = {"name": f"host-{number}", "executor_type": "simulated", "config": config}
            await service.hosts.create({**values, "max_concurrent_jobs": 100}, me)
        spec = read_job({"image": "busybox", "memory_limit_mb": 64, "cpu_limit": 0.1})

        starts = []
        for _ in range(singles):
            events = service.process.events.subscribe(await threads.read(event_store.newest))
            began = time.perf_counter()
            await service.jobs.submit([spec], me)
            # What a client sees: its events, not the times in the database, which come from several clocks.
            async for event in events:
                if event.kind == "job_started":
                    starts.append((time.perf_counter() - began) * 1000)
                if event.kind == "job_finished":
                    break
            await events.aclose()
            await asyncio.sleep(PAUSE)

        cursor = await threads.read(event_store.newest)
        seen: Counter[str] = Counter()
        began = time.perf_counter()
        submitting = asyncio.create_task(_submit(service, spec, jobs, me))
        async for event in service.process.events.subscribe(cursor):
            seen[event.kind] += 1
            if seen["job_finished"] == jobs:
                break
        took = time.perf_counter() - began
        await submitting
        wanted = ("job_submitted", "job_routed", "job_launched", "job_started", "job_finished")
        assert all(seen[kind] == jobs for kind in wanted), seen
        await asyncio.to_thread(_check, jobs + singles)
    return jobs / took, starts


async def _submit(service: object, spec: object, jobs: int, actor: object) -> None:
    for begin in range(0, jobs, BATCH):
        await service.jobs.submit([spec] * min(BATCH, jobs - begin), actor)  # type: ignore[attr-defined]


def _check(jobs: int) -> None:
    from django.db import connection

    from container_manager.models import ContainerJob

    statuses = Counter(ContainerJob.objects.values_list("status", flat=True))
    assert statuses == {"succeeded": jobs}, statuses
    connection.close()


def reference_rate(url: str) -> float | None:
    """Transactions per second of pgbench, with three statements and 16 clients; None without pgbench."""
    setup = (
        "CREATE TABLE reference AS SELECT n AS id, 'a' AS state, 0 AS n FROM generate_series(1, 1000) n; "
        "ALTER TABLE reference ADD PRIMARY KEY (id); CREATE TABLE reference_log (id integer, at timestamptz)"
    )
    return pgbench.rate(url, setup, REFERENCE, "DROP TABLE reference, reference_log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default="")
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--singles", type=int, default=100, help="jobs submitted one by one")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    table = fleet.Table(postgresql=fleet.prepare(options.database_url) == "postgresql")
    fleet.empty()
    rate, starts = asyncio.run(drain(options.jobs, options.hosts, options.singles))
    reference = reference_rate(options.database_url) if table.postgresql else None
    figures = {"of pgbench": rate / reference, "pgbench/s": reference} if reference else {}
    table.row(f"{options.jobs} jobs, submission to committed end", **{"jobs/s": rate}, **figures)
    p95 = statistics.quantiles(starts, n=20)[-1]
    table.row(
        f"{options.singles} jobs one by one, submit to start", **{"ms p50": statistics.median(starts), "p95": p95}
    )
    if options.json:
        table.as_json(options.json)


if __name__ == "__main__":
    main()
