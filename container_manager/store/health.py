"""The health of hosts: recording probes, failed launches and exhausted quotas, by the rules of `domain.host_health`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Case, F, Q, QuerySet, When

from container_manager import clock
from container_manager.domain import host_health
from container_manager.domain.host_health import EJECTED_AFTER, HealthStatus, Probes
from container_manager.domain.kinds import EventKind
from container_manager.models import ExecutorHost
from container_manager.store.transaction import Transaction, under_routing_lock

FRESH_INTERVALS = 3
"""For how many probe intervals the result of a probe is valid."""

HEALTH_FIELDS = [
    "health_status",
    "last_health_check",
    "health_latency_ms",
    "health_error",
    "consecutive_failures",
    "consecutive_successes",
    "reported_memory_mb",
    "reported_cpu_cores",
    "engine",
    "engine_id",
]

WITHOUT_FAULTS = {
    "launch_failures": 0,
    "ejections": 0,
    "ejected_until": None,
    "launch_error": "",
    "cooldowns": 0,
    "cooldown_until": None,
}
"""The values of a host whose earlier failures no longer count."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The result of one probe. Latency in milliseconds; `memory_mb` and the following as the engine reports them.

    `exhausted`: the quota that is used up, of a host that is healthy otherwise.
    """

    host_id: int
    status: HealthStatus
    checked_at: datetime
    latency_ms: float
    error: str = ""
    memory_mb: int | None = None
    cpu_cores: float | None = None
    engine: str = ""
    engine_id: str = ""
    exhausted: str = ""
    superseded: bool = False
    """The host's settings were changed during the probe, so that it says nothing about the host as it is."""

    @property
    def healthy(self) -> bool:
        return self.status is HealthStatus.HEALTHY


def apply_report(host: ExecutorHost, report: HealthReport) -> None:
    """Put the result of a probe into the instance."""
    host.last_health_check = report.checked_at
    host.health_latency_ms = report.latency_ms
    host.health_error = report.error
    if report.healthy:
        host.reported_memory_mb, host.reported_cpu_cores = report.memory_mb, report.cpu_cores
        host.engine, host.engine_id = report.engine, report.engine_id
    _set_probes(host, host_health.after_probe(_probes(host), healthy=report.healthy))


@under_routing_lock
def record_reports(tx: Transaction, items: Sequence[HealthReport]) -> list[None]:
    """Store the results of probes; only a change of health makes an event."""
    reports = {report.host_id: report for report in items if not report.superseded}
    hosts = list(ExecutorHost.objects.defer("config").filter(pk__in=reports))
    for host in hosts:
        before, report = host.health_status, reports[host.pk]
        apply_report(host, report)
        if report.exhausted:
            cool_down(tx, host, report.exhausted)
        health_event(tx, host, before)
    ExecutorHost.objects.bulk_update(hosts, HEALTH_FIELDS)
    return [None] * len(items)


def health_event(tx: Transaction, host: ExecutorHost, before: str) -> None:
    """Record an event if the health of the host has changed since `before`."""
    if host.health_status != before:
        message = f"{before} to {host.health_status}. {host.health_error}".strip()
        tx.event(EventKind.HOST_HEALTH_CHANGED, message, host=host)


def oldest_fresh(interval: timedelta) -> datetime:
    """The time since which a host must have been probed for its health to be known; it is probed once an interval."""
    return clock.now() - FRESH_INTERVALS * interval


def stale_since(before: datetime) -> QuerySet[ExecutorHost]:
    """Hosts that no process has probed since this time and that do not say so yet."""
    never = Q(last_health_check=None, health_status=HealthStatus.UNKNOWN, created_at__lt=before)
    known = Q(health_status=HealthStatus.UNKNOWN, health_error__gt="")
    return ExecutorHost.objects.filter(Q(last_health_check__lt=before) | never).exclude(known)


@under_routing_lock
def expire_stale(tx: Transaction, items: Sequence[datetime]) -> list[None]:
    """Hosts whose last probe is older than this become UNKNOWN: the process that should probe them is gone."""
    for host in stale_since(max(items)).defer("config"):
        before, why = host.health_status, unprobed(host.node)
        _set_probes(host, Probes(HealthStatus.UNKNOWN, 0, 0))
        host.health_error = why
        health_event(tx, host, before)
        host.save(update_fields=["health_status", "health_error", "consecutive_failures", "consecutive_successes"])
    return [None] * len(items)


def unprobed(node: str) -> str:
    """Why the health of a host of this node is unknown, and what to do."""
    if not node:
        return "No worker has probed it lately; start a process with the role worker or all."
    return (
        f"No worker of node {node} has probed it lately; start one on that machine. If the machine has another name "
        f"now, start it with CONTAINER_MANAGER_NODE={node}, or set config.node of this host to the new name."
    )


def count_unanswered_launch(tx: Transaction, host: ExecutorHost, error: str) -> None:
    """A launch got no answer, which counts like a failed probe."""
    before = host.health_status
    _set_probes(host, host_health.after_unanswered_launch(_probes(host)))
    host.health_error = error
    health_event(tx, host, before)
    host.save(update_fields=["consecutive_failures", "consecutive_successes", "health_error", "health_status"])


def count_failed_launch(
    tx: Transaction, host: ExecutorHost, error: str, *, ejects: bool = True, shown: bool = True
) -> None:
    """Count a failed launch. If it is to be `shown`, it is until a launch succeeds or the host changes.

    If it `ejects`, it is counted: several in a row eject the host, unless it is the last usable one of its type.
    """
    host = ExecutorHost.objects.defer("config").select_for_update().get(pk=host.pk)
    host.launch_failures += ejects
    host.launch_error = error if shown else host.launch_error
    now = clock.now()
    pause = host_health.ejection(host.launch_failures, host.ejections)
    if ejects and pause is not None and _has_usable_peer(host, now):
        host.launch_failures, host.ejections, host.ejected_until = 0, host.ejections + 1, now + pause
        message = f"{EJECTED_AFTER} launches in a row failed; ejected for {pause.total_seconds():g} s. {error}"
        tx.event(EventKind.HOST_EJECTED, message, host=host)
    host.save(update_fields=["launch_failures", "ejections", "ejected_until", "launch_error"])


def _has_usable_peer(host: ExecutorHost, now: datetime) -> bool:
    peers = ExecutorHost.objects.filter(
        Q(ejected_until=None) | Q(ejected_until__lte=now),
        executor_type=host.executor_type,
        is_active=True,
        is_draining=False,
        health_status=HealthStatus.HEALTHY,
    )
    return peers.exclude(pk=host.pk).exists()


def cool_down(tx: Transaction, host: ExecutorHost, error: str) -> None:
    """A quota of the host is used up: routing avoids it for a while, in all processes."""
    host = ExecutorHost.objects.defer("config").select_for_update().get(pk=host.pk)
    now = clock.now()
    if host.cooldown_until is not None and host.cooldown_until > now:
        return
    host.cooldowns += 1
    pause = host_health.cooldown(host.cooldowns)
    host.cooldown_until = now + pause
    tx.event(EventKind.HOST_COOLDOWN, f"Avoided for {pause.total_seconds():g} s. {error}", host=host)
    host.save(update_fields=["cooldowns", "cooldown_until"])


def reset_launch_failures(host_ids: Iterable[int | None]) -> None:
    """A launch has succeeded on these hosts, so earlier failures no longer count."""
    failed = Q(launch_failures__gt=0) | Q(ejections__gt=0) | Q(launch_error__gt="")
    # A launch from before the quota was used up says nothing about the quota.
    cooling = Q(cooldown_until__gt=(now := clock.now()))
    hosts = ExecutorHost.objects.filter(failed | Q(cooldown_until__lte=now), pk__in=[pk for pk in host_ids if pk])
    hosts.update(
        **WITHOUT_FAULTS
        | {
            "cooldowns": Case(When(cooling, then=F("cooldowns")), default=0),
            "cooldown_until": Case(When(cooling, then=F("cooldown_until")), default=None),
        }
    )


def _probes(host: ExecutorHost) -> Probes:
    return Probes(host.health_status, host.consecutive_successes, host.consecutive_failures)


def _set_probes(host: ExecutorHost, probes: Probes) -> None:
    host.health_status, host.consecutive_successes, host.consecutive_failures = probes
