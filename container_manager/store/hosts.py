"""Reading hosts, with their usage from the fleet view."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from enum import Enum
from typing import Any, NamedTuple

from django.db.models import Aggregate, BigIntegerField, Count, F, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Cast, Coalesce

from container_manager import clock
from container_manager.domain import capabilities, lifecycle
from container_manager.models import ContainerJob, ExecutorHost
from container_manager.routing.types import HostState
from container_manager.store import host_rows
from container_manager.store.fleet import deciding_view, reading_view, view

UNKNOWN_SIZE = 100
UNKNOWN = float(2**53)
"""In an order by latency, hosts without one come last."""


def fleet_size() -> int:
    """How many hosts there are; some value before they were first read."""
    return max(deciding_view.size, reading_view.size) or UNKNOWN_SIZE


def with_usage(hosts: Iterable[ExecutorHost]) -> list[ExecutorHost]:
    """Set used_jobs, used_memory_mb, used_cpu_millis, ejected, cooling and reserved_priority from the fleet view."""
    found = list(hosts)
    states = view().of([host.pk for host in found]) if found else {}
    for host in found:
        if (known := states.get(host.pk)) is not None:
            host.used_jobs, host.used_memory_mb, host.used_cpu_millis = known.jobs, known.memory, known.cpu
            host.ejected, host.cooling = known.ejected, known.cooling
            host.reserved_priority = known.reserved_priority
    return found


def state(host: ExecutorHost) -> HostState:
    """A host from `with_usage` as routing sees it. Without its usage it counts as empty."""
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


UNLIMITED = 2**53


def free_slots(prefix: str = "") -> CombinedExpression:
    """How many more jobs a host takes, for conditions of queries."""
    return F(f"{prefix}max_concurrent_jobs") - _held(prefix, Count("pk"))


def free_memory(prefix: str = "") -> CombinedExpression:
    """How many MiB of a host no job holds."""
    return _limit(prefix, "max_memory_mb", "reported_memory_mb") - _held(prefix, Sum("memory_limit"))


def free_millicores(prefix: str = "") -> CombinedExpression:
    """How many thousandths of a core of a host no job holds."""
    return _limit(prefix, "max_cpu_cores", "reported_cpu_cores") - _held(prefix, Sum(_as_integer("cpu_limit")))


def _limit(prefix: str, *columns: str) -> Coalesce:
    return Coalesce(
        *(_as_integer(f"{prefix}{column}") for column in columns), UNLIMITED, output_field=BigIntegerField()
    )


def _as_integer(column: str) -> Cast:
    return Cast(F(column), BigIntegerField())


def _held(prefix: str, what: Aggregate) -> Coalesce:
    """What the jobs that hold a host hold of it."""
    holding = ContainerJob.objects.filter(host=OuterRef(f"{prefix}pk"), status__in=list(lifecycle.ACTIVE))
    held = holding.order_by().values("host").annotate(held=what).values("held")
    return Coalesce(Subquery(held, output_field=BigIntegerField()), 0, output_field=BigIntegerField())


def candidates() -> list[ExecutorHost]:
    """Active hosts with their usage, in one query."""
    return with_usage(ExecutorHost.objects.filter(is_active=True).order_by("pk"))


class HostOrder(Enum):
    """An order of hosts: the column of their values, and whether the largest comes first."""

    CREATED = ("id", False)
    NAME = ("name", False)
    WEIGHT = ("routing_weight", True)
    LATENCY = ("health_latency_ms", False)
    FREE_SLOTS = ("max_concurrent_jobs", True)


HostKey = tuple[Any, int]
"""The value of a host in an order, negative where the largest comes first, and its id."""


class HostPage(NamedTuple):
    """Some hosts in their order, each with its key. `more`: there are others in the direction of the page."""

    hosts: list[tuple[HostKey, ExecutorHost]]
    more: bool


class Shown(NamedTuple):
    """What of hosts is shown besides the columns of their rows. Without their usage they count as empty.

    A config is decrypted; without it, hosts come from memory.
    """

    usage: bool = True
    config: bool = True


EVERYTHING = Shown()
NO_MORE = Shown(usage=False, config=False)


def page(
    where: Q, order: HostOrder, key: HostKey | None, limit: int, shown: Shown = EVERYTHING, *, backward: bool = False
) -> HostPage:
    """The first `limit` hosts after a key, or the last ones before it."""
    column, largest_first = order.value
    query = ExecutorHost.objects.filter(where)
    if order is HostOrder.CREATED:
        # The order of the rows; for the others, all of them have to be compared.
        beyond = Q() if key is None else Q(pk__lt=key[1]) if backward else Q(pk__gt=key[1])
        query = query.filter(beyond).order_by("-pk" if backward else "pk")[: limit + 1]
    read = list(query.values_list(column, "pk", "revision"))
    rows: Iterable[tuple[Any, int]] = [(value, pk) for value, pk, _ in read]
    if order is HostOrder.FREE_SLOTS:
        used = view().of([pk for _, pk in rows])
        rows = [(slots - used[pk].jobs if pk in used else slots, pk) for slots, pk in rows]
    keys = sorted((UNKNOWN if value is None else -value if largest_first else value, pk) for value, pk in rows)
    if backward:
        end = len(keys) if key is None else bisect_left(keys, key)
        start, more = max(end - limit, 0), end > limit
    else:
        start = 0 if key is None else bisect_right(keys, key)
        end, more = start + limit, start + limit < len(keys)
    wanted = keys[start:end]
    chosen = {pk for _, pk in wanted}
    if shown.config:
        found = ExecutorHost.objects.in_bulk(list(chosen))
    else:
        found = host_rows.newest({pk: revision for _, pk, revision in read if pk in chosen})
    if shown.usage:
        with_usage(found.values())
    return HostPage([(one, found[one[1]]) for one in wanted if one[1] in found], more)


def matching(where: Q, limit: int | None = None, shown: Shown = EVERYTHING) -> list[ExecutorHost]:
    """Hosts, oldest first."""
    return _read(ExecutorHost.objects.filter(where).order_by("pk")[:limit], shown)


def by_ids(ids: Iterable[int], shown: Shown = EVERYTHING) -> dict[int, ExecutorHost]:
    """Hosts; those that do not exist are left out."""
    return {host.pk: host for host in _read(ExecutorHost.objects.filter(pk__in=list(ids)), shown)}


def _read(rows: QuerySet[ExecutorHost], shown: Shown) -> list[ExecutorHost]:
    found: Iterable[ExecutorHost] = rows
    if not shown.config:
        found = host_rows.newest(dict(rows.values_list("pk", "revision"))).values()
    return with_usage(found) if shown.usage else list(found)


def bare(where: Q) -> list[ExecutorHost]:
    """Hosts without their usage."""
    return list(ExecutorHost.objects.filter(where).order_by("pk"))


def is_cooling(host_id: int) -> bool:
    """Whether routing avoids the host now because its quota was used up."""
    return ExecutorHost.objects.filter(pk=host_id, cooldown_until__gt=clock.now()).exists()


def any_exist() -> bool:
    return ExecutorHost.objects.exists()
