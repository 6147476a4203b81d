"""Reading hosts, with the usage that is derived from the job rows."""

from collections.abc import Iterable

import orjson
from django.db import connection
from django.db.models import BooleanField, IntegerField, Q, QuerySet
from django.db.models.expressions import RawSQL

from container_manager import clock
from container_manager.domain import capabilities, lifecycle
from container_manager.models import ExecutorHost
from container_manager.routing.types import HostState
from container_manager.store import bulk

# Literals, not parameters: SQLite uses a partial index only if it can prove that the query's condition implies it.
ACTIVE_SQL = "status IN ({})".format(", ".join(f"'{status}'" for status in sorted(lifecycle.ACTIVE)))

# A host counts as ejected only while its executor type has another usable host.
_EJECTED = """CASE WHEN {0}.ejected_until IS NULL THEN FALSE ELSE {0}.ejected_until > %s AND EXISTS (
    SELECT 1 FROM container_manager_executorhost o
    WHERE o.executor_type = {0}.executor_type AND o.is_active AND NOT o.is_draining AND o.health_status = 'healthy'
        AND (o.ejected_until IS NULL OR o.ejected_until <= %s)) END"""

_COOLING = "CASE WHEN {0}.cooldown_until IS NULL THEN FALSE ELSE {0}.cooldown_until > %s END"

_SNAPSHOT = f"""
    SELECT h.id, h.name, h.executor_type, h.region, h.labels, h.routing_weight, h.only_preferred,
           h.max_concurrent_jobs, COALESCE(h.max_memory_mb, h.reported_memory_mb),
           COALESCE(h.max_cpu_cores, h.reported_cpu_cores), h.is_active, h.is_draining, h.health_status,
           COALESCE(u.jobs, 0), COALESCE(u.memory, 0), COALESCE(u.cpu, 0),
           {_EJECTED.format("h")}, {_COOLING.format("h")}, r.priority, h.grants
    FROM container_manager_executorhost h
    LEFT JOIN (
        SELECT host_id, COUNT(*) AS jobs, SUM(memory_limit) AS memory, SUM(cpu_limit) AS cpu
        FROM container_manager_containerjob WHERE {ACTIVE_SQL} GROUP BY host_id
    ) u ON u.host_id = h.id
    LEFT JOIN (
        SELECT reserved_host_id, MAX(priority) AS priority FROM container_manager_containerjob
        WHERE status = 'pending' AND reserved_host_id IS NOT NULL GROUP BY reserved_host_id
    ) r ON r.reserved_host_id = h.id
    ORDER BY h.id
"""  # noqa: S608 - constants of this module


_seen = {"hosts": 100}


def fleet_size() -> int:
    """How many hosts the last snapshot of this process had; some value before the first."""
    return _seen["hosts"]


def snapshot() -> list[HostState]:
    """All hosts with their usage, by one query and without model instances."""
    with connection.cursor() as cursor:
        cursor.execute(_SNAPSHOT, [bulk.as_moment(clock.now())] * 3)
        rows = cursor.fetchall()
    _seen["hosts"] = len(rows)
    # Many hosts share the same labels and grants, so each text is decoded once.
    labels = {text: orjson.loads(text) for text in {row[4] for row in rows}}
    grants = {text: capabilities.current(orjson.loads(text)) for text in {row[-1] for row in rows}}
    return [HostState._make((*row[:4], labels[row[4]], *row[5:-1], grants[row[-1]])) for row in rows]


def with_usage(hosts: QuerySet[ExecutorHost]) -> QuerySet[ExecutorHost]:
    """Annotate used_jobs, used_memory_mb, used_cpu_millis, ejected, cooling and reserved_priority in the same query."""
    now, table = clock.now(), "container_manager_executorhost"
    states = {
        "ejected": RawSQL(_EJECTED.format(table), [now, now], BooleanField()),  # noqa: S611
        "cooling": RawSQL(_COOLING.format(table), [now], BooleanField()),  # noqa: S611
    }
    return hosts.annotate(**states, **_USAGE)


def _usage(aggregate: str) -> RawSQL:
    return RawSQL(  # noqa: S611 - constants of this module
        f"(SELECT {aggregate} FROM container_manager_containerjob u "  # noqa: S608
        f"WHERE u.host_id = container_manager_executorhost.id AND u.{ACTIVE_SQL})",
        [],
        output_field=IntegerField(),
    )


_USAGE = {
    "used_jobs": _usage("COUNT(*)"),
    "used_memory_mb": _usage("COALESCE(SUM(memory_limit), 0)"),
    "used_cpu_millis": _usage("COALESCE(SUM(cpu_limit), 0)"),
    "reserved_priority": RawSQL(
        "(SELECT MAX(r.priority) FROM container_manager_containerjob r "
        "WHERE r.reserved_host_id = container_manager_executorhost.id AND r.status = 'pending')",
        [],
        output_field=IntegerField(),
    ),
}


def state(host: ExecutorHost) -> HostState:
    """A host from `with_usage` as routing sees it. A host without the annotations counts as empty."""
    memory = host.max_memory_mb if host.max_memory_mb is not None else host.reported_memory_mb
    cores = host.max_cpu_cores if host.max_cpu_cores is not None else host.reported_cpu_cores
    return HostState(
        id=host.pk,
        name=host.name,
        executor_type=str(host.executor_type),
        region=host.region,
        labels=host.labels,
        weight=host.routing_weight,
        is_active=host.is_active,
        is_draining=host.is_draining,
        health=str(host.health_status),
        only_preferred=host.only_preferred,
        max_jobs=host.max_concurrent_jobs,
        max_memory=memory,
        max_cpu=None if cores is None else round(cores * 1000),
        jobs=host.used_jobs,
        memory=host.used_memory_mb,
        cpu=host.used_cpu_millis,
        ejected=host.ejected,
        cooling=host.cooling,
        reserved_priority=host.reserved_priority,
        grants=capabilities.current(host.grants),
    )


def candidates() -> list[ExecutorHost]:
    """Active hosts with their usage, in one query."""
    return list(with_usage(ExecutorHost.objects.filter(is_active=True)).order_by("pk"))


def matching(where: Q, limit: int | None = None, usage: bool = True) -> list[ExecutorHost]:
    """Hosts, oldest first. Without their usage they count as empty."""
    return list(_read(where, usage).order_by("pk")[:limit])


def by_ids(ids: Iterable[int], usage: bool = True) -> dict[int, ExecutorHost]:
    """Hosts; those that do not exist are left out. Without their usage they count as empty."""
    return {host.pk: host for host in _read(Q(pk__in=list(ids)), usage)}


def _read(where: Q, usage: bool) -> QuerySet[ExecutorHost]:
    hosts = ExecutorHost.objects.filter(where)
    return with_usage(hosts) if usage else hosts


def bare(where: Q) -> list[ExecutorHost]:
    """Hosts without their usage."""
    return list(ExecutorHost.objects.filter(where).order_by("pk"))


def is_cooling(host_id: int) -> bool:
    """Whether routing avoids the host now because its quota was used up."""
    return ExecutorHost.objects.filter(pk=host_id, cooldown_until__gt=clock.now()).exists()


def any_exist() -> bool:
    return ExecutorHost.objects.exists()
