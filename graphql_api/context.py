"""What a resolver knows of its request: who asks, the service, and loaders that batch what is nested."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import strawberry
from strawberry.dataloader import DataLoader

from container_manager.models import (
    ApiToken,
    ContainerJob,
    ExecutorHost,
    JobAttempt,
    QueueRefusal,
    Role,
    RoutingDecision,
)
from container_manager.routing.types import JobRequirements, Suggestion
from container_manager.service import Service
from container_manager.store import attempts, queue, threads, waiting
from container_manager.store import decisions as decision_store
from container_manager.store import hosts as host_store
from container_manager.store import jobs as job_store
from container_manager.store.attempts import Part
from container_manager.store.records import Recorded
from container_manager.store.transaction import Actor

K = TypeVar("K")
T = TypeVar("T")

RANKS = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller who has shown a token."""

    actor: Actor
    role: Role

    def may(self, role: Role) -> bool:
        return RANKS[self.role] >= RANKS[role]


class Loader(DataLoader[K, T]):
    """A DataLoader that outlives its callers.

    One whose only callers are cancelled before their batch is begun would wait for that batch for ever, and let all
    who come later wait with it.
    """

    def __init__(self, load_fn: Callable[[list[K]], Awaitable[Sequence[T]]]) -> None:
        # Without a cache: a subscription's context lives as long as its connection, and must see what changes.
        super().__init__(load_fn=load_fn, cache=False)

    def load(self, key: K) -> Awaitable[T]:
        return asyncio.shield(super().load(key))


async def _hosts(ids: list[int]) -> list[ExecutorHost | None]:
    found = await threads.read(host_store.by_ids, set(ids))
    return [found.get(pk) for pk in ids]


async def _jobs(ids: list[int]) -> list[ContainerJob | None]:
    found = await threads.read(job_store.by_ids, set(ids))
    return [found.get(pk) for pk in ids]


async def _decisions(ids: list[int]) -> list[RoutingDecision | None]:
    found = await threads.read(decision_store.by_ids, set(ids))
    return [found.get(pk) for pk in ids]


async def _decisions_of_job(ids: list[int]) -> list[list[RoutingDecision]]:
    found = await threads.read(decision_store.of_jobs, set(ids))
    return [found[pk] for pk in ids]


async def _outputs(ids: list[int]) -> list[list[Part]]:
    found = await threads.read(attempts.outputs, set(ids))
    return [found[pk] for pk in ids]


async def _attempts(ids: list[int]) -> list[list[JobAttempt]]:
    found = await threads.read(attempts.of_jobs, set(ids))
    return [found[pk] for pk in ids]


async def _evaluations(ids: list[int]) -> list[Recorded | None]:
    found = await threads.read(decision_store.evaluations, set(ids))
    return [found.get(pk) for pk in ids]


async def _refusals(keys: list[str]) -> list[QueueRefusal | None]:
    found = await threads.read(waiting.refusals, set(keys))
    return [found.get(key) for key in keys]


async def _advice(jobs: list[JobRequirements]) -> list[list[Suggestion]]:
    found = await threads.read(queue.advice, set(jobs))
    return [found[job] for job in jobs]


@dataclass
class Context:
    """One request, or one WebSocket connection. `identity` is None until a token was shown."""

    service: Service
    address: str
    identity: Identity | None = None
    tokens: Loader[str, ApiToken | None] | None = None
    """Of all callers together: subscribers hear of an event at once, and each looks its token up."""
    connection_params: dict[str, Any] | None = None
    secret: str = ""
    checked_at: int = 0

    def __post_init__(self) -> None:
        self.hosts = Loader(_hosts)
        self.jobs = Loader(_jobs)
        self.decisions = Loader(_decisions)
        self.decisions_of_job = Loader(_decisions_of_job)
        self.outputs = Loader(_outputs)
        self.attempts = Loader(_attempts)
        self.evaluations = Loader(_evaluations)
        self.refusals = Loader(_refusals)
        self.advice = Loader(_advice)

    @property
    def actor(self) -> Actor:
        assert self.identity is not None  # noqa: S101 - the view refuses callers without one
        return self.identity.actor


Info = strawberry.Info[Context, None]
