"""What a resolver knows of its request: who asks, the service, and loaders that batch what is nested."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import strawberry
from strawberry.dataloader import DataLoader

from container_manager.models import Role
from container_manager.service import Service
from container_manager.store import decisions as decision_store
from container_manager.store import hosts as host_store
from container_manager.store import jobs as job_store
from container_manager.store import threads
from container_manager.store.transaction import Actor

if TYPE_CHECKING:
    from container_manager import models
    from graphql_api import types

RANKS = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller who has shown a token."""

    actor: Actor
    role: Role

    def may(self, role: Role) -> bool:
        return RANKS[self.role] >= RANKS[role]


def _loader(read: Callable[[Sequence[int]], Awaitable[list[Any]]]) -> Any:
    # Without a cache: a subscription's context lives as long as its connection, and must see what changes.
    return field(default_factory=lambda: DataLoader(load_fn=read, cache=False))


async def _hosts(ids: Sequence[int]) -> list[Any]:
    from graphql_api.types import ExecutorHost

    found = await threads.read(host_store.by_ids, set(ids))
    return [ExecutorHost.of(found[pk]) if pk in found else None for pk in ids]


async def _jobs(ids: Sequence[int]) -> list[Any]:
    from graphql_api.types import ContainerJob

    found = await threads.read(job_store.by_ids, set(ids))
    return [ContainerJob.of(found[pk]) if pk in found else None for pk in ids]


async def _decisions(ids: Sequence[int]) -> list[Any]:
    from graphql_api.types import RoutingDecision

    found = await threads.read(decision_store.by_ids, set(ids))
    return [RoutingDecision.of(found[pk]) if pk in found else None for pk in ids]


async def _decisions_of_job(ids: Sequence[int]) -> list[Any]:
    found = await threads.read(decision_store.of_jobs, set(ids))
    return [found[pk] for pk in ids]


@dataclass
class Context:
    """One request, or one WebSocket connection. `identity` is None until a token was shown."""

    service: Service
    address: str
    identity: Identity | None = None
    connection_params: dict[str, Any] | None = None
    hosts: "DataLoader[int, types.ExecutorHost | None]" = _loader(_hosts)
    jobs: "DataLoader[int, types.ContainerJob | None]" = _loader(_jobs)
    decisions: "DataLoader[int, types.RoutingDecision | None]" = _loader(_decisions)
    decisions_of_job: "DataLoader[int, list[models.RoutingDecision]]" = _loader(_decisions_of_job)

    @property
    def actor(self) -> Actor:
        assert self.identity is not None  # noqa: S101 - the view refuses callers without one
        return self.identity.actor


Info = strawberry.Info[Context, None]
