"""Hosts."""

import base64
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Self

import orjson
import strawberry
from django.db.models import Q
from strawberry.scalars import JSON

from container_manager import clock, models
from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import ExecutorType
from container_manager.executors.configs import CONFIGS
from container_manager.executors.secrets import hide_secrets
from container_manager.store.host_usage import HOUR, KEPT, Usage
from container_manager.store.hosts import HostKey, HostOrder, Shown
from container_manager.store.paging import Search
from graphql_api.context import Info
from graphql_api.ids import bad_input, from_cursor, in_utc, page_size, shown, to_cursor, to_global
from graphql_api.operation import current
from graphql_api.types.capacity import Capacity, capacity_of
from graphql_api.types.host_settings import HostSettings, settings_of
from graphql_api.types.labels import Label, labels_of
from graphql_api.types.pages import Asked, Connection, Edge, Node, PageInfo

if TYPE_CHECKING:
    from graphql_api.types.events import RoutingEvent
    from graphql_api.types.jobs import RoutingDecision
    from graphql_api.types.lists import JobConnection


@strawberry.type
class HostHealth:
    status: HealthStatus
    last_checked_at: datetime | None
    latency_ms: float | None
    consecutive_failures: int
    error: str | None = strawberry.field(
        description="What the last probe found wrong, or what the last launches were refused for."
    )


@strawberry.type(description="How a host was used in one minute or hour.")
class HostUsage:
    start: datetime = strawberry.field(description="When the minute or hour began.")
    running_jobs: float = strawberry.field(description="Jobs that held it, on average.")
    most_jobs: int = strawberry.field(description="The most jobs that held it at the same time.")
    reserved_memory_mb: float = strawberry.field(description="MiB that jobs held, on average.")
    reserved_cpu_cores: float = strawberry.field(description="Cores that jobs held, on average.")
    latency_ms: float | None = strawberry.field(
        description="How long its probes took, on average; null when none was answered."
    )

    @classmethod
    def of(cls, usage: Usage) -> Self:
        return cls(
            start=usage.start,
            running_jobs=usage.jobs,
            most_jobs=usage.most_jobs,
            reserved_memory_mb=usage.memory_mb,
            reserved_cpu_cores=usage.cpu_cores,
            latency_ms=usage.latency_ms,
        )


DEFAULT_RANGE = timedelta(hours=1)
LONGEST_RANGE = KEPT[HOUR]
LABELS = ("labels",)
LARGEST_PAGE = 1000
USAGE, CONFIG = ("capacity",), ("config", "settings")


def shown_of_hosts() -> Shown:
    """What this operation may show of hosts that takes time to read."""
    mentions = current().mentions
    return Shown(usage=mentions(USAGE) > 0, config=mentions(CONFIG) > 0)


@strawberry.type(
    description="A place that runs containers: a Docker or Podman engine, a Cloud Run region, or the simulator."
)
class ExecutorHost(Node):
    name: str
    executor_type: ExecutorType
    is_active: bool = strawberry.field(description="False: never routed to. Running jobs go on.")
    is_draining: bool = strawberry.field(description="True: takes no new jobs, finishes the ones it has.")
    region: str
    labels: JSON
    routing_weight: int = strawberry.field(
        description="0 to 1000. 0: only used when no host with a weight can take the job."
    )
    engine: str | None = strawberry.field(
        description="What the engine says that it is, such as Docker 20.10.24 or Podman 4.3.1; null before its first "
        "successful probe and for other executors."
    )
    created_at: datetime
    health: HostHealth
    ejected_until: datetime | None = strawberry.field(
        description="Avoided until then, because launches kept failing; does not count for the last usable host "
        "of its kind."
    )
    cooldown_until: datetime | None = strawberry.field(
        description="Avoided until then by all jobs, because a quota was used up."
    )
    empty_since: datetime | None = strawberry.field(
        description="While it is drained: since when it has no job; null before that."
    )
    row: strawberry.Private[models.ExecutorHost]

    @strawberry.field(description="The same as `labels`, by name.")
    def label_list(self) -> list[Label]:
        return labels_of(self.row.labels)

    @strawberry.field(description="Newest first. Those whose latest attempt is on this host.")
    async def jobs(
        self, info: Info, first: int | None = None, after: str | None = None
    ) -> Annotated["JobConnection", strawberry.lazy("graphql_api.types.lists")]:
        from graphql_api.types import lists  # noqa: PLC0415 - the types refer to each other

        return await lists.jobs(info, Asked(Search(indexed=Q(host=self.row.pk)), first, after))

    @strawberry.field(description="Newest first. Those that have chosen this host.")
    async def decisions(
        self, info: Info, first: int | None = None, after: str | None = None
    ) -> Connection[Annotated["RoutingDecision", strawberry.lazy("graphql_api.types.jobs")]]:

        from graphql_api.types import lists  # noqa: PLC0415 - the types refer to each other

        search = Search(models.RoutingDecision, indexed=Q(host_id=self.row.pk))
        return await lists.decisions(info, Asked(search, first, after))

    @strawberry.field(description="What happened to it and to the jobs on it, newest first.")
    async def events(
        self, info: Info, first: int | None = None, after: str | None = None
    ) -> Connection[Annotated["RoutingEvent", strawberry.lazy("graphql_api.types.events")]]:
        from graphql_api.types import events  # noqa: PLC0415 - the types refer to each other

        search = Search(models.RoutingEvent, indexed=Q(host_id=self.row.pk))
        return await events.events(info, Asked(search, first, after))

    @strawberry.field(
        description="How it was used, oldest first; by default in the last hour. It is known by minute for the last 12 "
        "hours, and by hour for 90 days: an earlier range is made of hours."
    )
    async def history(
        self, info: Info, since: datetime | None = None, until: datetime | None = None
    ) -> list[HostUsage]:
        end = in_utc(until, "until") if until is not None else clock.now()
        begin = in_utc(since, "since") if since is not None else end - DEFAULT_RANGE
        if not timedelta() < end - begin <= LONGEST_RANGE:
            bad_input(f"since: must be before until, by at most {LONGEST_RANGE.days} days.")
        found = await info.context.service.hosts.history(self.row.pk, begin, end)
        return [HostUsage.of(usage) for usage in found]

    @strawberry.field(
        description="`config` as types, with the defaults of what it does not contain; null for a config that an "
        "earlier version has stored and this one does not understand."
    )
    def settings(self) -> HostSettings | None:
        return settings_of(str(self.row.executor_type), self.row.config)

    @strawberry.field
    def capacity(self) -> Capacity:
        return capacity_of(self.row)

    @strawberry.field(description="Executor settings; secret values are never returned.")
    async def config(self) -> JSON:
        shown = hide_secrets(self.row.config, CONFIGS[str(self.row.executor_type)])
        current().spend(characters=len(orjson.dumps(shown)))
        return JSON(shown)

    @classmethod
    def of(cls, host: models.ExecutorHost) -> Self:
        if times := current().mentions(LABELS):
            current().spend(characters=times * sum(len(name) + len(value) for name, value in host.labels.items()))
        return cls(
            id=strawberry.ID(to_global("ExecutorHost", host.pk)),
            name=host.name,
            executor_type=ExecutorType(host.executor_type),
            is_active=host.is_active,
            is_draining=host.is_draining,
            region=host.region,
            labels=JSON(host.labels),
            routing_weight=host.routing_weight,
            engine=host.engine or None,
            created_at=host.created_at,
            health=HostHealth(
                status=HealthStatus(host.health_status),
                last_checked_at=host.last_health_check,
                latency_ms=host.health_latency_ms,
                consecutive_failures=host.consecutive_failures,
                error=host.health_error or host.launch_error or None,
            ),
            ejected_until=host.ejected_until,
            cooldown_until=host.cooldown_until,
            empty_since=host.empty_since,
            row=host,
        )


async def hosts(
    info: Info,
    where: Q,
    order: HostOrder,
    forward: tuple[int | None, str | None],
    backward: tuple[int | None, str | None],
) -> Connection[ExecutorHost]:
    """A page of hosts: the first ones after a cursor, or the last ones before one if a number of those is given."""
    back = backward[0] is not None
    size, cursor = backward if back else forward
    limit = page_size(size, LARGEST_PAGE, "last" if back else "first")
    key = _from_cursor(cursor, order, "before" if back else "after")
    read = info.context.service.hosts.page
    found = await read(where, order, key, limit, shown_of_hosts(), backward=back)
    edges = [Edge(cursor=_to_cursor(key, order), node=ExecutorHost.of(row)) for key, row in found.hosts]
    return Connection(
        edges=edges,
        page_info=PageInfo(
            has_next_page=cursor is not None if back else found.more,
            has_previous_page=found.more if back else cursor is not None,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
    )


def _to_cursor(key: HostKey, order: HostOrder) -> str:
    return to_cursor(key[1]) if order is HostOrder.CREATED else base64.urlsafe_b64encode(orjson.dumps(key)).decode()


def _from_cursor(cursor: str | None, order: HostOrder, argument: str) -> HostKey | None:
    if cursor is None:
        return None
    if order is HostOrder.CREATED:
        pk = from_cursor(cursor, argument) or 0
        return pk, pk
    found: Any = None
    with suppress(ValueError):
        found = orjson.loads(base64.urlsafe_b64decode(cursor))
    if not (isinstance(found, list) and [type(part) for part in found] in _CURSORS[order is HostOrder.NAME]):
        bad_input(f"{argument}: {shown(cursor)} is not a cursor of this order.")
    return found[0], found[1]


_CURSORS = {True: ([str, int],), False: ([int, int], [float, int])}
"""The types in a cursor, by whether the order is that of names."""


async def host(info: Info, pk: int | None) -> ExecutorHost | None:
    """The host with this primary key, in one query with others of the same request."""
    row = await info.context.hosts.load((pk, shown_of_hosts())) if pk else None
    return ExecutorHost.of(row) if row else None
