"""Hosts."""

from datetime import datetime
from typing import Self

import orjson
import strawberry
from strawberry.scalars import JSON

from container_manager import models
from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import ExecutorType
from container_manager.executors.configs import CONFIGS
from container_manager.executors.secrets import hide_secrets
from graphql_api.context import Info
from graphql_api.ids import to_global
from graphql_api.operation import current
from graphql_api.types.capacity import Capacity, capacity_of
from graphql_api.types.pages import Node


@strawberry.type
class HostHealth:
    status: HealthStatus
    last_checked_at: datetime | None
    latency_ms: float | None
    consecutive_failures: int
    error: str | None = strawberry.field(
        description="What the last probe found wrong, or what the last launches were refused for."
    )


LABELS = ("labels",)
USAGE = ("capacity",)


def shows_usage() -> bool:
    """Whether this operation may show the usage of hosts, for which all active jobs are counted."""
    return current().mentions(USAGE) > 0


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
    health: HostHealth
    ejected_until: datetime | None = strawberry.field(
        description="Avoided until then, because launches kept failing; does not count for the last usable host "
        "of its kind."
    )
    cooldown_until: datetime | None = strawberry.field(
        description="Avoided until then by all jobs, because a quota was used up."
    )
    row: strawberry.Private[models.ExecutorHost]

    @strawberry.field
    def capacity(self) -> Capacity:
        return capacity_of([self.row])

    @strawberry.field(description="Executor settings; secret values are never returned.")
    async def config(self) -> JSON:
        model = CONFIGS.get(str(self.row.executor_type))
        shown = self.row.config if model is None else hide_secrets(self.row.config, model)
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
            health=HostHealth(
                status=HealthStatus(host.health_status),
                last_checked_at=host.last_health_check,
                latency_ms=host.health_latency_ms,
                consecutive_failures=host.consecutive_failures,
                error=host.health_error or host.launch_error or None,
            ),
            ejected_until=host.ejected_until,
            cooldown_until=host.cooldown_until,
            row=host,
        )


async def host(info: Info, pk: int | None) -> ExecutorHost | None:
    """The host with this primary key, in one query with others of the same request."""
    row = await info.context.hosts.load((pk, shows_usage())) if pk else None
    return ExecutorHost.of(row) if row else None
