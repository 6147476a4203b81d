"""Hosts: reading them with what they use, and changing them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from django.db import connection
from django.db.models import BooleanField, Case, F, IntegerField, Q, QuerySet, When
from django.db.models.expressions import RawSQL
from django.utils import timezone

from container_manager import lifecycle
from container_manager.errors import Conflict, NotFound
from container_manager.models import ContainerJob, EventKind, ExecutorHost, HealthStatus
from container_manager.routing.types import HostState
from container_manager.store import bulk
from container_manager.store.transaction import Actor, Transaction, under_routing_lock
from container_manager.store.waiting import release_host

# Literals, not parameters: SQLite uses a partial index only when it can prove that the condition implies it.
ACTIVE_SQL = "status IN ({})".format(", ".join(f"'{status}'" for status in sorted(lifecycle.ACTIVE)))

# Only while its kind has another host that can be used.
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

EXECUTOR_FIELDS = {"config", "max_concurrent_jobs"}
"""What an executor is built from."""

UNHEALTHY_AFTER, HEALTHY_AFTER = 3, 2
"""Probes in a row that change a known health."""


EJECTED_AFTER = 5
"""Launches that fail in a row before a host is ejected."""

EJECTED_FOR, LONGEST_EJECTION = timedelta(seconds=30), timedelta(minutes=5)
"""For how long, times how often it was ejected since its last success; and at most."""


COOLDOWN, LONGEST_COOLDOWN = timedelta(seconds=30), timedelta(minutes=5)
"""For how long, times how often in a row a quota was used up; and at most."""


def snapshot() -> list[HostState]:
    """All hosts with their usage: one query, whatever their number, without model instances."""
    with connection.cursor() as cursor:
        cursor.execute(_SNAPSHOT, [bulk.as_moment(timezone.now())] * 3)
        rows = cursor.fetchall()
    # Few sets of labels are different from all others.
    labels = {text: orjson.loads(text) for text in {row[4] for row in rows}}
    grants = {text: tuple(orjson.loads(text)) for text in {row[-1] for row in rows}}
    return [HostState._make((*row[:4], labels[row[4]], *row[5:-1], grants[row[-1]])) for row in rows]


def with_usage(hosts: QuerySet[ExecutorHost]) -> QuerySet[ExecutorHost]:
    """Adds used_jobs, used_memory_mb, used_cpu_millis, ejected, cooling and reserved_priority, in the same query."""
    now, table = timezone.now(), "container_manager_executorhost"
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
    """An instance from `with_usage` as routing sees it; an instance without usage counts as empty."""
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
        grants=tuple(host.grants),
    )


def candidates() -> list[ExecutorHost]:
    """Active hosts with their usage, in one query."""
    return list(with_usage(ExecutorHost.objects.filter(is_active=True)).order_by("pk"))


def matching(where: Q, limit: int | None = None) -> list[ExecutorHost]:
    """Hosts with their usage, oldest first."""
    return list(with_usage(ExecutorHost.objects.filter(where)).order_by("pk")[:limit])


def by_ids(ids: Iterable[int]) -> dict[int, ExecutorHost]:
    """Hosts with their usage; those that do not exist are left out."""
    return {host.pk: host for host in with_usage(ExecutorHost.objects.filter(pk__in=list(ids)))}


def by_ids_bare(ids: Iterable[int]) -> dict[int, ExecutorHost]:
    """Hosts without usage and config."""
    return ExecutorHost.objects.defer("config").in_bulk(list(ids))


def bare(where: Q) -> list[ExecutorHost]:
    """Hosts without their usage."""
    return list(ExecutorHost.objects.filter(where).order_by("pk"))


def any_stale(before: datetime) -> bool:
    """Whether a host counts as probed that nobody has probed since."""
    return (
        ExecutorHost.objects.exclude(health_status=HealthStatus.UNKNOWN).filter(last_health_check__lt=before).exists()
    )


def is_cooling(host_id: int) -> bool:
    """Whether a quota of the host was used up a while ago."""
    return ExecutorHost.objects.filter(pk=host_id, cooldown_until__gt=timezone.now()).exists()


def any_exist() -> bool:
    return ExecutorHost.objects.exists()


# ------------------------------------------------------------------ units of work


@dataclass(frozen=True, slots=True)
class HostChange:
    """New values for a host; `host_id` None makes a new one. `moves`: its executions would be looked for elsewhere."""

    host_id: int | None
    values: dict[str, Any]
    actor: Actor | None = None
    action: str = "updateHost"
    kind: EventKind = EventKind.HOST_UPDATED
    message: str = "Host {} was changed."
    moves: bool = False


@under_routing_lock
def save_hosts(tx: Transaction, changes: Sequence[HostChange]) -> list[object]:
    """Create or change hosts."""
    return [_save_host(tx, change) for change in changes]


def _save_host(tx: Transaction, change: HostChange) -> object:
    # Locked, because a launch that succeeds is written without the routing lock.
    rows = ExecutorHost.objects.select_for_update()
    host = ExecutorHost() if change.host_id is None else rows.filter(pk=change.host_id).first()
    if host is None:
        return NotFound("There is no such host.")
    name = change.values.get("name", host.name)
    if ExecutorHost.objects.filter(name=name).exclude(pk=host.pk).exists():
        return Conflict(f"name: a host named {name!r} exists already.")
    if change.moves and ContainerJob.objects.filter(host_id=host.pk, status__in=list(lifecycle.ACTIVE)).exists():
        return Conflict(
            f"config: host {host.name} holds jobs; drain it and move it to another engine once they have ended."
        )
    before = host.health_status
    for field, value in change.values.items():
        setattr(host, field, value)
    if change.values.keys() & EXECUTOR_FIELDS:
        host.config_version += 1
        host.launch_error = ""
    host.save()
    tx.by(change.actor, change.action, host.name)
    tx.event(change.kind, change.message.format(host.name), host=host)
    if change.host_id is not None and host.health_status != before:
        tx.event(EventKind.HOST_HEALTH_CHANGED, _changed(before, host), host=host)
    return with_usage(ExecutorHost.objects.filter(pk=host.pk)).get()


def _changed(before: str, host: ExecutorHost) -> str:
    return f"{before} to {host.health_status}. {host.health_error}".strip()


@under_routing_lock
def delete_hosts(tx: Transaction, items: Sequence[tuple[int, Actor | None]]) -> list[object]:
    """Delete hosts that hold no jobs; each answer is the host as it was."""
    return [_delete_host(tx, host_id, actor) for host_id, actor in items]


def _delete_host(tx: Transaction, host_id: int, actor: Actor | None) -> object:
    host = with_usage(ExecutorHost.objects.filter(pk=host_id)).first()
    if host is None:
        return NotFound("There is no such host.")
    if host.used_jobs:
        return Conflict(f"Host {host.name} holds jobs ({host.used_jobs}); drain it and delete it once they have ended.")
    tx.by(actor, "deleteHost", host.name)
    tx.event(EventKind.HOST_DELETED, f"Host {host.name} was deleted.", host=host)
    release_host(tx, host_id)
    ContainerJob.objects.filter(host=host).update(host=None)
    ExecutorHost.objects.filter(pk=host_id).delete()
    return host


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What one probe found. Latency in milliseconds; `memory_mb` and `cpu_cores` as the engine reports them.

    `exhausted`: the quota that is used up, of a host that is well otherwise.
    """

    host_id: int
    status: HealthStatus
    checked_at: datetime
    latency_ms: float
    error: str = ""
    memory_mb: int | None = None
    cpu_cores: float | None = None
    exhausted: str = ""

    @property
    def healthy(self) -> bool:
        return self.status is HealthStatus.HEALTHY


@under_routing_lock
def record_health(tx: Transaction, items: Sequence[HealthReport]) -> list[None]:
    """Write probe results; only a change makes an event."""
    reports = {report.host_id: report for report in items}
    hosts = list(ExecutorHost.objects.defer("config").filter(pk__in=reports))
    for host in hosts:
        before, report = host.health_status, reports[host.pk]
        apply_report(host, report)
        if report.exhausted:
            cool_down(tx, host, report.exhausted)
        if host.health_status != before:
            tx.event(
                EventKind.HOST_HEALTH_CHANGED,
                f"{before} to {host.health_status}. {host.health_error}".strip(),
                host=host,
            )
    ExecutorHost.objects.bulk_update(hosts, HEALTH_FIELDS)
    return [None] * len(items)


def count_failure(tx: Transaction, host: ExecutorHost, error: str) -> None:
    """A launch that got no answer counts as a failed probe, so that a dead host is left alone before the next one."""
    host.consecutive_failures, host.consecutive_successes = host.consecutive_failures + 1, 0
    host.health_error = error
    if host.consecutive_failures >= UNHEALTHY_AFTER and host.health_status != HealthStatus.UNHEALTHY:
        tx.event(EventKind.HOST_HEALTH_CHANGED, f"{host.health_status} to unhealthy. {error}", host=host)
        host.health_status = HealthStatus.UNHEALTHY
    host.save(update_fields=["consecutive_failures", "consecutive_successes", "health_error", "health_status"])


def count_launch_failure(tx: Transaction, host: ExecutorHost, error: str, wrong: bool = False) -> None:
    """Launches that keep failing have the host left alone for a while, longer each time; never the last of its kind.

    `wrong`: what failed it is wrong with the host, and stays named until a launch succeeds or somebody changes it.
    """
    host = ExecutorHost.objects.defer("config").select_for_update().get(pk=host.pk)
    host.launch_failures += 1
    now = timezone.now()
    others = ExecutorHost.objects.filter(
        Q(ejected_until=None) | Q(ejected_until__lte=now),
        executor_type=host.executor_type,
        is_active=True,
        is_draining=False,
        health_status=HealthStatus.HEALTHY,
    ).exclude(pk=host.pk)
    if host.launch_failures >= EJECTED_AFTER and others.exists():
        host.launch_failures, host.ejections = 0, host.ejections + 1
        pause = min(EJECTED_FOR * host.ejections, LONGEST_EJECTION)
        host.ejected_until = now + pause
        tx.event(
            EventKind.HOST_EJECTED,
            f"{EJECTED_AFTER} launches in a row failed; left alone for {pause.total_seconds():g} s. {error}",
            host=host,
        )
    if wrong:
        host.launch_error = error
    host.save(update_fields=["launch_failures", "ejections", "ejected_until", "launch_error"])


def cool_down(tx: Transaction, host: ExecutorHost, error: str) -> None:
    """A quota is used up: all jobs leave the host alone for a while, longer each time, whoever has found it out."""
    host = ExecutorHost.objects.defer("config").select_for_update().get(pk=host.pk)
    now = timezone.now()
    if host.cooldown_until is not None and host.cooldown_until > now:
        return
    host.cooldowns += 1
    pause = min(COOLDOWN * host.cooldowns, LONGEST_COOLDOWN)
    host.cooldown_until = now + pause
    tx.event(EventKind.HOST_COOLDOWN, f"Left alone for {pause.total_seconds():g} s. {error}", host=host)
    host.save(update_fields=["cooldowns", "cooldown_until"])


def forgive(host_ids: Iterable[int | None]) -> None:
    """A launch has succeeded there: what failed before counts no more."""
    failed = Q(launch_failures__gt=0) | Q(ejections__gt=0)
    # What was launched before a quota was used up tells nothing of it.
    cooling = Q(cooldown_until__gt=(now := timezone.now()))
    hosts = ExecutorHost.objects.filter(failed | Q(cooldown_until__lte=now), pk__in=[pk for pk in host_ids if pk])
    hosts.update(
        launch_failures=0,
        ejections=0,
        ejected_until=None,
        launch_error="",
        cooldowns=Case(When(cooling, then=F("cooldowns")), default=0),
        cooldown_until=Case(When(cooling, then=F("cooldown_until")), default=None),
    )


@under_routing_lock
def forget_stale(tx: Transaction, items: Sequence[datetime]) -> list[None]:
    """Hosts that nobody has probed since the given moment are UNKNOWN: whoever should have is gone."""
    stale = ExecutorHost.objects.defer("config").exclude(health_status=HealthStatus.UNKNOWN)
    for host in stale.filter(last_health_check__lt=max(items)):
        tx.event(
            EventKind.HOST_HEALTH_CHANGED, f"{host.health_status} to unknown. Nobody has probed it lately.", host=host
        )
        ExecutorHost.objects.filter(pk=host.pk).update(
            health_status=HealthStatus.UNKNOWN, consecutive_failures=0, consecutive_successes=0
        )
    return [None] * len(items)


HEALTH_FIELDS = [
    "health_status",
    "last_health_check",
    "health_latency_ms",
    "health_error",
    "consecutive_failures",
    "consecutive_successes",
    "reported_memory_mb",
    "reported_cpu_cores",
]


def apply_report(host: ExecutorHost, report: HealthReport) -> None:
    """Count the probe; from UNKNOWN one result decides, else it takes several in a row."""
    host.last_health_check = report.checked_at
    host.health_latency_ms = report.latency_ms
    host.health_error = report.error
    if report.healthy:
        host.consecutive_successes, host.consecutive_failures = host.consecutive_successes + 1, 0
        host.reported_memory_mb, host.reported_cpu_cores = report.memory_mb, report.cpu_cores
    else:
        host.consecutive_successes, host.consecutive_failures = 0, host.consecutive_failures + 1
    unknown = host.health_status == HealthStatus.UNKNOWN
    if unknown or host.consecutive_failures >= UNHEALTHY_AFTER or host.consecutive_successes >= HEALTHY_AFTER:
        host.health_status = report.status
