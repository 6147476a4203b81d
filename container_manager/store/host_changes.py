"""Changing hosts: creating, updating, deleting them, and declaring one lost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from django.db.models import F, Q
from pydantic.alias_generators import to_camel

from container_manager import clock
from container_manager.domain import lifecycle
from container_manager.domain.host_health import UNHEALTHY_AFTER, HealthStatus
from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import JobStatus
from container_manager.domain.outcome import FailureReason
from container_manager.errors import NO_HOST, Conflict, NotFound
from container_manager.models import ContainerJob, ExecutorHost
from container_manager.store import attempts, pending, reservations
from container_manager.store.health import WITHOUT_FAULTS, health_event
from container_manager.store.hosts import with_usage
from container_manager.store.transaction import Actor, Transaction, under_routing_lock

EXECUTOR_FIELDS = {"config", "max_concurrent_jobs"}
"""The fields from which an executor is built."""

SHOWN_FIELDS = {
    "name", "region", "labels", "routing_weight", "only_preferred", "max_concurrent_jobs", "max_memory_mb",
    "max_cpu_cores", "is_active", "is_draining",
}  # fmt: skip
"""The fields whose old and new values are shown in the audit log."""

ROOM_FIELDS = {"config", "max_memory_mb", "max_cpu_cores", "is_active"}
"""The fields that say which engine's room a host has, and how much of it."""


@dataclass(frozen=True, slots=True)
class HostChange:
    """New values for a host; with `host_id` None a host is created.

    `message`: the text of the event, with {} for the host's name.
    `moves`: the new config would look for executions in another place.
    """

    host_id: int | None
    values: dict[str, Any]
    actor: Actor | None = None
    action: str = "updateHost"
    kind: EventKind = EventKind.HOST_UPDATED
    message: str = "Host {} was changed."
    moves: bool = False


def draining(host_id: int, actor: Actor) -> HostChange:
    """The change that stops new jobs from being routed to the host."""
    message = "Host {} takes no new jobs."
    return HostChange(host_id, {"is_draining": True}, actor, "drainHost", EventKind.HOST_DRAINED, message)


def resuming(host_id: int, actor: Actor) -> HostChange:
    """The change that lets the host take jobs again; earlier failures and exhausted quotas no longer count."""
    values = {"is_draining": False, "empty_since": None, **WITHOUT_FAULTS}
    return HostChange(host_id, values, actor, "resumeHost", EventKind.HOST_RESUMED, "Host {} takes jobs again.")


@under_routing_lock
def save_hosts(tx: Transaction, changes: Sequence[HostChange]) -> list[object]:
    """Create or change hosts; each answer is the host with its usage, NotFound or Conflict."""
    answers: list[object] = []
    # Row lock: the success of a launch is written without the routing lock.
    rows = ExecutorHost.objects.select_for_update()
    for change in changes:
        if change.host_id is None:
            host, target, detail = ExecutorHost(), change.values["name"], ""
        elif (found := rows.filter(pk=change.host_id).first()) is not None:
            host, target, detail = found, found.name, difference(found, change.values)
        else:
            answers.append(NotFound(NO_HOST))
            tx.audit(change.actor, change.action, change.host_id, answers[-1])
            continue
        answers.append(_save_host(tx, host, change))
        tx.audit(change.actor, change.action, target, answers[-1], detail)
    return answers


def difference(host: ExecutorHost, values: dict[str, Any]) -> str:
    """What these values will change, by the names of the API. Of a config, which may have secrets, only the keys."""
    changed = [name for name, value in values.items() if getattr(host, name) != value]
    parts = [
        f"{to_camel(name)}: {_written(getattr(host, name))} to {_written(values[name])}"
        for name in changed
        if name in SHOWN_FIELDS
    ]
    if "config" in changed:
        old, new = host.config, values["config"]
        keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        parts.append(f"config: {', '.join(keys)} changed")
    return "; ".join(parts)


def _written(value: Any) -> str:
    return orjson.dumps(value).decode()


def _save_host(tx: Transaction, host: ExecutorHost, change: HostChange) -> object:
    if host.pk is not None and all(getattr(host, field) == value for field, value in change.values.items()):
        return with_usage([host])[0]
    name = change.values.get("name", host.name)
    if ExecutorHost.objects.filter(name=name).exclude(pk=host.pk).exists():
        return Conflict(f"a host named {name!r} exists already.", "name")
    if change.moves and ContainerJob.objects.filter(host_id=host.pk, status__in=list(lifecycle.ACTIVE)).exists():
        return Conflict(
            f"host {host.name} holds jobs; drain it and move it to another engine once they have ended.", "config"
        )
    before = host.health_status
    if change.values.keys() & ROOM_FIELDS and (other := _same_engine(host, change.values)) is not None:
        return Conflict(
            f"this is the engine of host {other.name}. Use that host; or give both hosts maxMemoryMb and maxCpuCores, "
            "so that its room is not counted twice.",
            "config",
        )
    for field, value in change.values.items():
        setattr(host, field, value)
    if change.values.keys() & EXECUTOR_FIELDS:
        host.config_version += 1
        host.launch_error = ""
        _forgive_lacks(host)
    host.save()
    tx.event(change.kind, change.message.format(host.name), host=host, actor=change.actor)
    if change.host_id is not None:
        health_event(tx, host, before)
    return with_usage([ExecutorHost.objects.get(pk=host.pk)])[0]


def _forgive_lacks(host: ExecutorHost) -> None:
    """Let routing try the host again for waiting jobs: it may have now what it lacked."""
    waiting = ContainerJob.objects.filter(status=JobStatus.PENDING).exclude(unfit_hosts=[]).defer("environment")
    for job in waiting.select_for_update():
        if host.pk in job.unfit_hosts:
            pending.reclassify(job, unfit_hosts=[pk for pk in job.unfit_hosts if pk != host.pk])


def _same_engine(host: ExecutorHost, values: dict[str, Any]) -> ExecutorHost | None:
    """Another active host on the engine that the host will have, if one of the two has not been given limits."""
    engine_id = values.get("engine_id", host.engine_id)
    if not (engine_id and values.get("is_active", host.is_active)):
        return None
    has_limits = all(values.get(name, getattr(host, name)) is not None for name in ("max_memory_mb", "max_cpu_cores"))
    unlimited = Q(max_memory_mb=None) | Q(max_cpu_cores=None)
    others = ExecutorHost.objects.defer("config").filter(engine_id=engine_id, is_active=True).exclude(pk=host.pk)
    return others.filter(unlimited if has_limits else Q()).first()


@under_routing_lock
def delete_hosts(tx: Transaction, items: Sequence[tuple[int, Actor | None]]) -> list[object]:
    """Delete hosts without jobs; each answer is the host as it was, NotFound or Conflict."""
    return [_audited(tx, "deleteHost", host_id, actor, _delete_host(tx, host_id, actor)) for host_id, actor in items]


def _audited(tx: Transaction, action: str, host_id: int, actor: Actor | None, answer: object) -> object:
    tx.audit(actor, action, answer.name if isinstance(answer, ExecutorHost) else host_id, answer)
    return answer


def _delete_host(tx: Transaction, host_id: int, actor: Actor | None) -> object:
    host = next(iter(with_usage(ExecutorHost.objects.filter(pk=host_id))), None)
    if host is None:
        return NotFound(NO_HOST)
    if host.used_jobs:
        return Conflict(f"Host {host.name} holds jobs ({host.used_jobs}); drain it and delete it once they have ended.")
    tx.event(EventKind.HOST_DELETED, f"Host {host.name} was deleted.", host=host, actor=actor)
    reservations.end_for_host(tx, host_id)
    ContainerJob.objects.filter(host=host).update(host=None)
    ExecutorHost.objects.filter(pk=host_id).delete()
    return host


@under_routing_lock
def declare_lost(tx: Transaction, items: Sequence[tuple[int, Actor | None]]) -> list[object]:
    """Hosts that will not come back: they get no more jobs, and the jobs they had run again elsewhere."""
    return [
        _audited(tx, "declareHostLost", host_id, actor, _declare_lost(tx, host_id, actor)) for host_id, actor in items
    ]


def _declare_lost(tx: Transaction, host_id: int, actor: Actor | None) -> object:
    # Lock jobs before hosts (the global lock order).
    rows = ContainerJob.objects.filter(host_id=host_id, status__in=list(lifecycle.ACTIVE)).order_by("pk")
    jobs = list(rows.defer("environment").select_for_update())
    host = ExecutorHost.objects.select_for_update().filter(pk=host_id).first()
    if host is None:
        return NotFound(NO_HOST)
    if host.health_status == HealthStatus.HEALTHY:
        return Conflict(
            f"Host {host.name} is HEALTHY: it has not failed {UNHEALTHY_AFTER} health checks in a row. Drain it, and "
            "its jobs will end there; or try again when it is UNHEALTHY."
        )
    if jobs or host.is_active:
        ExecutorHost.objects.filter(pk=host_id).update(is_active=False)
        why = f"Host {host.name} was declared lost."
        tx.event(EventKind.HOST_LOST, why, host=host, actor=actor)
        for job in jobs:
            _give_up(tx, job, host, why)
    return with_usage([ExecutorHost.objects.get(pk=host_id)])[0]


def _give_up(tx: Transaction, job: ContainerJob, host: ExecutorHost, why: str) -> None:
    """End the attempt of a job on a lost host; a job that is not to be cancelled gets another attempt."""
    # The new epoch invalidates the worker's claim, so that it can write nothing more.
    ContainerJob.objects.filter(pk=job.pk).update(
        lease_epoch=F("lease_epoch") + 1, infrastructure_failures=F("infrastructure_failures") + 1
    )
    job.host, job.error, job.failure, job.finished_at = host, why, str(FailureReason.HOST_FAULT), clock.now()
    if job.cancel_requested_at is None:
        job.status = JobStatus.FAILED
        attempts.open_next(tx, job, why)
        return
    job.status, job.failure, job.message = JobStatus.CANCELLED, "", ""
    job.lease_owner, job.lease_expires_at = "", None
    job.save(update_fields=["status", "error", "message", "finished_at", "lease_owner", "lease_expires_at"])
    tx.event(EventKind.JOB_CANCELLED, why, job=job, host=host)
