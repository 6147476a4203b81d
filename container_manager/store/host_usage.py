"""The usage of hosts over time, by minute and by hour; and when a drained host has finished its last job."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db.models import Exists, OuterRef, Q, QuerySet

from container_manager import clock
from container_manager.domain import lifecycle
from container_manager.domain.kinds import EventKind
from container_manager.models import ContainerJob, ExecutorHost, HostUsage
from container_manager.store import bulk
from container_manager.store.hosts import with_usage
from container_manager.store.transaction import Transaction, under_routing_lock

MINUTE, HOUR = 60, 3600
KEPT = {MINUTE: timedelta(hours=12), HOUR: timedelta(days=90)}
STORED_AT_ONCE = 500
"""Hosts whose samples are stored by one transaction."""

DELETED_AT_ONCE = 5000

COLUMNS = (
    "host_id", "seconds", "start", "samples", "jobs", "most_jobs", "memory_mb", "cpu_millis", "answers", "latency_ms",
)  # fmt: skip
_TABLE = HostUsage._meta.db_table  # noqa: SLF001 - Django's documented interface
_SUMS = ", ".join(f"{name} = {_TABLE}.{name} + excluded.{name}" for name in COLUMNS[3:] if name != "most_jobs")
ADD = (
    f"ON CONFLICT (host_id, seconds, start) DO UPDATE SET {_SUMS}, most_jobs = "
    f"CASE WHEN excluded.most_jobs > {_TABLE}.most_jobs THEN excluded.most_jobs ELSE {_TABLE}.most_jobs END"
)


class Usage(NamedTuple):
    """How a host was used since `start`: means over the samples, and the most jobs. Memory in MiB, CPU in cores.

    `latency_ms`: of the probes; None when there was none.
    """

    start: datetime
    jobs: float
    most_jobs: int
    memory_mb: float
    cpu_cores: float
    latency_ms: float | None


def sample() -> list[list[tuple[object, ...]]]:
    """A sample of every host, as rows in portions for `store`."""
    now = clock.now()
    starts = {MINUTE: now.replace(second=0, microsecond=0), HOUR: now.replace(minute=0, second=0, microsecond=0)}
    rows: list[tuple[object, ...]] = []
    for host in with_usage(ExecutorHost.objects.defer("config").order_by("pk")):
        known = host.health_latency_ms is not None
        values = (1, host.used_jobs, host.used_jobs, host.used_memory_mb, host.used_cpu_millis)
        for seconds, start in starts.items():
            row = (host.pk, seconds, bulk.as_moment(start), *values, int(known), host.health_latency_ms or 0.0)
            rows.append(row)
    size = STORED_AT_ONCE * len(starts)
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def store(tx: Transaction, items: Sequence[list[tuple[object, ...]]]) -> list[None]:
    """Add samples to what is known of their minutes and hours."""
    for rows in items:
        tx.rows.append(bulk.Rows(HostUsage, COLUMNS, rows, ADD))
        tx.flush()
    return [None] * len(items)


def between(host_id: int, since: datetime, until: datetime) -> list[Usage]:
    """The usage of a host by minute, or by hour when the range begins more than 12 hours ago; oldest first."""
    seconds = MINUTE if since >= clock.now() - KEPT[MINUTE] else HOUR
    # The minute or hour in which the range begins belongs to it.
    begin = since - timedelta(seconds=seconds)
    rows = HostUsage.objects.filter(host_id=host_id, seconds=seconds, start__gt=begin, start__lt=until)
    return [_usage(row) for row in rows.order_by("start")]


def _usage(row: HostUsage) -> Usage:
    return Usage(
        start=row.start,
        jobs=row.jobs / row.samples,
        most_jobs=row.most_jobs,
        memory_mb=row.memory_mb / row.samples,
        cpu_cores=row.cpu_millis / row.samples / 1000,
        latency_ms=row.latency_ms / row.answers if row.answers else None,
    )


def delete_old(tx: Transaction, items: Sequence[timedelta]) -> list[bool]:  # noqa: ARG001
    """Delete some of the usage that is older than it is kept; answers whether there may be more."""
    pks: list[int] = []
    for seconds, kept in KEPT.items():
        old = HostUsage.objects.filter(seconds=seconds, start__lt=clock.now() - kept)
        pks += old.values_list("pk", flat=True)[: DELETED_AT_ONCE - len(pks)]
    HostUsage.objects.filter(bulk.id_in("id", pks)).delete()
    return [len(pks) == DELETED_AT_ONCE] * len(items)


RESUMED = Q(is_draining=False, empty_since__isnull=False)
"""Hosts that a process of an earlier version has resumed, which does not know `empty_since`."""


def must_record_empty() -> bool:
    """Whether there is something for `record_empty` to do."""
    return newly_empty().exists() or ExecutorHost.objects.filter(RESUMED).exists()


def newly_empty() -> QuerySet[ExecutorHost]:
    """Drained hosts that have finished their last job, and of which no event says so yet."""
    holding = ContainerJob.objects.filter(host=OuterRef("pk"), status__in=list(lifecycle.ACTIVE))
    return ExecutorHost.objects.filter(~Exists(holding), is_draining=True, empty_since=None)


@under_routing_lock
def record_empty(tx: Transaction, items: Sequence[None]) -> list[None]:
    """Record that drained hosts are empty. Under the routing lock no host gets a job meanwhile."""
    ExecutorHost.objects.filter(RESUMED).update(empty_since=None)
    hosts = list(newly_empty().defer("config").order_by("pk").select_for_update())
    ExecutorHost.objects.filter(pk__in=[host.pk for host in hosts]).update(empty_since=clock.now())
    for host in hosts:
        tx.event(EventKind.HOST_EMPTY, f"Host {host.name} is drained and holds no job.", host=host)
    return [None] * len(items)
