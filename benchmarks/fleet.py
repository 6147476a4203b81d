"""Many hosts and jobs, written directly into the database; and the clock and the table that benchmarks share."""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def prepare(database_url: str) -> str:
    """Point Django at a database and bring its tables up to date; returns its kind."""
    home = tempfile.mkdtemp(prefix="container-manager-benchmark-")
    os.environ["CONTAINER_MANAGER_HOME"] = home
    os.environ["CONTAINER_MANAGER_SECRET_KEY"] = "only-for-benchmarks-only-for-benchmarks"
    os.environ["CONTAINER_MANAGER_LOG_LEVEL"] = "warning"
    os.environ["CONTAINER_MANAGER_DATABASE_URL"] = database_url or f"sqlite:///{Path(home) / 'benchmark.sqlite3'}"
    os.environ["DJANGO_SETTINGS_MODULE"] = "container_manager.settings"
    import django

    django.setup()
    from container_manager.startup import migrate

    migrate()
    from django.db import connection

    return connection.vendor


def empty() -> None:
    """Empty the database."""
    from django.core.management import call_command

    call_command("flush", verbosity=0, interactive=False, inhibit_post_migrate=True)
    from container_manager.store.installation import identify

    identify()


def make_hosts(count: int, slots: int = 1000) -> None:
    """Healthy hosts of another node, so that no control loop of this process uses them."""
    from container_manager.models import ExecutorHost
    from container_manager.store import bulk

    hosts = [
        ExecutorHost(
            pk=pk,
            name=f"host-{number:05}",
            executor_type="docker",
            config={"node": "elsewhere"},
            region=("eu-central", "us-east", "asia-east")[number % 3],
            labels={"disk": "ssd"} if number % 4 == 0 else {},
            routing_weight=1 + number * 37 % 1000,
            max_concurrent_jobs=slots,
            max_memory_mb=slots * 512,
            max_cpu_cores=slots,
            node="elsewhere",
            health_status="healthy",
            last_health_check=datetime(2099, 1, 1, tzinfo=UTC),
        )
        for number, pk in enumerate(bulk.new_ids({ExecutorHost: count})[ExecutorHost])
    ]
    bulk.insert(bulk.rows_of(ExecutorHost, hosts))


def make_jobs(count: int, *, status: str = "pending", hosts: int = 0, classes: int = 1) -> list[int]:
    """Jobs of `classes` distinct requirements. With `hosts`, they are spread over all hosts."""
    from container_manager.models import ContainerJob, ExecutorHost
    from container_manager.store import bulk

    places = list(ExecutorHost.objects.values_list("pk", flat=True)) if hosts else [None]
    ids = bulk.new_ids({ContainerJob: count})[ContainerJob]
    jobs = [
        ContainerJob(
            pk=pk, image="busybox", command=["true"], memory_limit=64 + number % classes, cpu_limit=0.1, status=status,
            host_id=places[number % len(places)], executor_type="docker" if hosts else "",
        )
        for number, pk in enumerate(ids)
    ]  # fmt: skip
    for job in jobs:
        job.derive()
    bulk.insert(bulk.rows_of(ContainerJob, jobs))
    return ids


def analyze() -> None:
    """Update the database's statistics about its tables."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


_results: list[Any] = []


def last_result() -> Any:
    """The result of the work before this one."""
    return _results[-1]


def medians_ms(works: list[Callable[[], Any]], times: int) -> list[float]:
    """The median time of each work, done in turn, in milliseconds."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(times + 2):
        for work, times_of_work in zip(works, taken, strict=True):
            began = time.perf_counter()
            _results.append(work())
            if turn > 1:
                times_of_work.append((time.perf_counter() - began) * 1000)
        _results.clear()
    return [statistics.median(entry) for entry in taken]


def median_ms(work: Callable[[], Any], times: int) -> float:
    """The median time of one work, in milliseconds."""
    return medians_ms([work], times)[0]


class Table:
    """Prints each row at once, and all of them as JSON at the end."""

    def __init__(self, *, postgresql: bool = False) -> None:
        self.postgresql = postgresql
        self._rows: list[dict[str, Any]] = []

    def row(self, what: str, **figures: Any) -> None:
        self._rows.append({"what": what, **figures})
        shown = "  ".join(f"{name} {_short(value)}" for name, value in figures.items())
        print(f"{what:<58} {shown}", flush=True)

    def as_json(self, path: str) -> None:
        """Write to a file, or to stdout for `-`."""
        text = json.dumps(self._rows, indent=1)
        if path == "-":
            sys.stdout.write(text + "\n")
        else:
            Path(path).write_text(text)


def _short(value: Any) -> str:
    if isinstance(value, (int, float)):
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return str(value)
