"""How fast it decides, compared with what the same database and the same fleet cost without it.

    python -m benchmarks.routing [--database-url postgresql://…] [--hosts 10,100,1000,10000] [--active 0,100000]

The database is emptied. Every figure has a reference from the same run: for a single decision its snapshot query plus
one pure pass, and on PostgreSQL pgbench with the same rows; for a batch SQL that writes the same rows in sets.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from benchmarks import fleet, over_http, pgbench


def single_decisions(table: fleet.Table, hosts: int, active: int, times: int) -> dict[str, float]:
    """One job at a time, committed; returns the figures."""
    from container_manager.models import ContainerJob
    from container_manager.routing import router
    from container_manager.routing.types import JobRequest
    from container_manager.store import jobs
    from container_manager.store.fleet import states
    from container_manager.store.transaction import commit_one

    fleet.empty()
    fleet.make_hosts(hosts, slots=max(1000, active // hosts * 2))
    if active:
        fleet.make_jobs(active, status="running", hosts=hosts)
    fleet.analyze()

    def submit() -> None:
        job = ContainerJob(image="busybox", memory_limit=64, cpu_limit=0.1)
        (answer,) = commit_one(jobs.submit, jobs.Submission([job]))
        assert answer.status == "routed"

    request = [JobRequest(1, 1, ContainerJob(memory_limit=64, cpu_limit=0.1).requirements())]
    # In turn, on hosts just read, so that all three find the same caches.
    view_ms, pure, durable = fleet.medians_ms(
        [states, lambda: router.decide(fleet.last_result(), request, 1), submit], times
    )
    reference = pgbench.latency_ms(os.environ["CONTAINER_MANAGER_DATABASE_URL"]) if table.postgresql else None
    against = {"pgbench_ms": reference, "to_pgbench": durable / reference} if reference else {}
    figures = {"view_ms": view_ms, "pure_ms": pure, "durable_ms": durable, **against}
    table.row(f"single decision, {hosts:,} hosts, {active:,} active jobs", **figures)
    return figures


def batches(table: fleet.Table, hosts: int, batch: int) -> None:
    """Many jobs at once, submitted and routed, by the factory and over HTTP."""
    sql_seconds = asyncio.run(_batches(table, hosts, batch))
    over_http.batches(table, hosts, batch, sql_seconds)


async def _batches(table: fleet.Table, hosts: int, batch: int) -> float:
    from container_manager.executors.factory import ExecutorFactory
    from container_manager.models import ContainerJob
    from container_manager.store import jobs, threads
    from container_manager.store.writer import write_directly

    await threads.write(fleet.empty)
    await threads.write(fleet.make_hosts, hosts)

    async def submit() -> float:
        fresh = [ContainerJob(image="busybox", command=["true"], memory_limit=64, cpu_limit=0.1) for _ in range(batch)]
        began = time.perf_counter()
        answers = await write_directly(jobs.submit, jobs.Submission(fresh))
        took = time.perf_counter() - began
        assert {job.status for job in answers} == {"routed"}
        return took

    async def route() -> float:
        ids = await threads.write(fleet.make_jobs, batch)
        waiting = [ContainerJob(pk=pk) for pk in ids]
        began = time.perf_counter()
        decisions = await ExecutorFactory().route_jobs(waiting)
        took = time.perf_counter() - began
        assert all(decision.host is not None for decision in decisions)
        return took

    await submit()
    await threads.write(fleet.analyze)
    submitting = 0.0
    for name, ours, reference in (
        ("factory.submit", submit, partial(same_rows_submitted, batch)),
        ("factory.route_jobs", route, partial(same_rows_routed, batch)),
    ):
        taken, taken_by_sql = await _alternate(ours, reference)
        table.row(
            f"{name}, {batch:,} jobs, {hosts:,} hosts",
            jobs_per_s=batch / taken,
            sql_jobs_per_s=batch / taken_by_sql,
            share=taken_by_sql / taken,
        )
        submitting = submitting or taken_by_sql
    return submitting


async def _alternate(
    ours: Callable[[], Awaitable[float]], reference: Callable[[], float], times: int = 5
) -> tuple[float, float]:
    from container_manager.store import threads

    mine, theirs = [], []
    for _ in range(times):
        mine.append(await ours())
        theirs.append(await threads.write(reference))
    return statistics.median(mine), statistics.median(theirs)


def _newest(cursor: Any, table: str) -> int:
    cursor.execute(f"SELECT MAX(id) FROM {table}")
    return int(cursor.fetchone()[0])


JOB, DECISION, EVENT = (f"container_manager_{name}" for name in ("containerjob", "routingdecision", "routingevent"))


def same_rows_submitted(batch: int) -> float:
    """The rows of the last batch once more, by three statements."""
    from django.db import connection, transaction

    with connection.cursor() as cursor:
        newest = {table: _newest(cursor, table) for table in (JOB, DECISION, EVENT)}
        began = time.perf_counter()
        with transaction.atomic():
            cursor.execute(pgbench.copy_statement(cursor, JOB, f"id > {newest[JOB] - batch}"))
            cursor.execute(pgbench.copy_statement(cursor, DECISION, f"id > {newest[DECISION] - batch}"))
            cursor.execute(pgbench.copy_statement(cursor, EVENT, f"id > {newest[EVENT] - 2 * batch}"))
        return time.perf_counter() - began


def same_rows_routed(batch: int) -> float:
    """As many pending jobs get the hosts of the last batch, with decisions and events, by three statements."""
    from django.db import connection, transaction

    names = ("host_id", "executor_type", "routing_reason")
    with connection.cursor() as cursor:
        newest = {table: _newest(cursor, table) for table in (JOB, DECISION, EVENT)}
        first = fleet.make_jobs(batch)[0]
        shift = first - (newest[JOB] - batch + 1)
        began = time.perf_counter()
        with transaction.atomic():
            values = ", ".join(f"{name} = old.{name}" for name in names)
            cursor.execute(
                f"UPDATE {JOB} SET status = 'routed', {values} FROM {JOB} old "
                f"WHERE old.id = {JOB}.id - {shift} AND {JOB}.id >= {first}"
            )
            cursor.execute(pgbench.copy_statement(cursor, DECISION, f"id > {newest[DECISION] - batch}"))
            cursor.execute(pgbench.copy_statement(cursor, EVENT, f"id > {newest[EVENT] - batch}"))
        return time.perf_counter() - began


def pending_jobs(table: fleet.Table, hosts: int, jobs: int, classes: int) -> None:
    """A routing pass over many pending jobs for which there is no room."""
    from container_manager.store import scheduling
    from container_manager.store.transaction import commit_one

    fleet.empty()
    fleet.make_hosts(hosts, slots=1)
    fleet.make_jobs(hosts, status="running", hosts=hosts)
    fleet.make_jobs(jobs, classes=classes)
    fleet.analyze()
    commit_one(scheduling.route_pending, None)
    took = fleet.median_ms(lambda: commit_one(scheduling.route_pending, None), 3)
    table.row(f"a pass over {jobs:,} pending jobs of {classes:,} classes, {hosts:,} full hosts", pass_ms=took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default=os.environ.get("CONTAINER_MANAGER_DATABASE_URL", ""))
    parser.add_argument("--hosts", default="10,100,1000,10000")
    parser.add_argument("--active", default="0,100000")
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--batch", type=int, default=10_000, help="jobs submitted and routed at once")
    parser.add_argument("--batch-hosts", type=int, default=1000)
    parser.add_argument("--pending", type=int, default=100_000, help="pending jobs of one routing pass")
    parser.add_argument("--requests", type=int, default=2000, help="requests of submitJob")
    parser.add_argument("--json", help="write the figures to this file, - for stdout")
    arguments = parser.parse_args()
    vendor = fleet.prepare(arguments.database_url)
    from graphql_api import memory

    table = fleet.Table(postgresql=vendor == "postgresql")
    print(f"database: {vendor}")
    memory.tune()
    for hosts in map(int, arguments.hosts.split(",")):
        for active in map(int, arguments.active.split(",")):
            single_decisions(table, hosts, active, arguments.times)
    batches(table, arguments.batch_hosts, arguments.batch)
    for classes in (1, min(1000, arguments.pending)):
        pending_jobs(table, arguments.batch_hosts, arguments.pending, classes)
    over_http.singles(table, 100, arguments.requests)
    if arguments.json:
        table.as_json(arguments.json)


if __name__ == "__main__":
    main()
