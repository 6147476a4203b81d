"""The context of a request: its caller, the service, and loaders that batch nested objects."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

import strawberry
from strawberry.dataloader import DataLoader

from container_manager.domain.kinds import Role
from container_manager.models import ContainerJob, ExecutorHost, JobAttempt, QueueRefusal, RoutingDecision
from container_manager.routing.types import JobRequirements, Suggestion
from container_manager.service import Service
from container_manager.store.hosts import Shown
from container_manager.store.outputs import LogLine, TooMuchTextError, Wanted
from container_manager.store.records import Recorded
from container_manager.store.tokens import Credential
from container_manager.store.transaction import Actor
from graphql_api.operation import LARGEST_ANSWER, TEXT, too_much

K = TypeVar("K")
T = TypeVar("T")

RANKS = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller with a valid token."""

    actor: Actor
    role: Role
    expires_at: datetime | None = None

    def may(self, role: Role) -> bool:
        return RANKS[self.role] >= RANKS[role]


class Loader(DataLoader[K, T]):
    """A DataLoader whose batch is loaded even if its callers are cancelled.

    A stock DataLoader whose only callers are cancelled before their batch starts never starts it, and all later callers
    of the batch wait forever.
    """

    def __init__(self, load_fn: Callable[[list[K]], Awaitable[Sequence[T]]]) -> None:
        # No cache: a subscription's context lives as long as its connection, and must see changes.
        super().__init__(load_fn=load_fn, cache=False)

    def load(self, key: K) -> Awaitable[T]:
        return asyncio.shield(super().load(key))


def _optional(read: Callable[[set[K]], Awaitable[Mapping[K, T]]]) -> Loader[K, T | None]:
    """Loads what may not exist."""

    async def load(keys: list[K]) -> list[T | None]:
        found = await read(set(keys))
        return [found.get(key) for key in keys]

    return Loader(load)


def _certain(read: Callable[[set[K]], Awaitable[Mapping[K, T]]]) -> Loader[K, T]:
    """Loads what exists for every key."""

    async def load(keys: list[K]) -> list[T]:
        found = await read(set(keys))
        return [found[key] for key in keys]

    return Loader(load)


@dataclass
class Context:
    """One request, or one WebSocket connection. `identity` is None until a valid token was given."""

    service: Service
    address: str
    identity: Identity | None = None
    tokens: Loader[str, Credential | None] | None = None
    """Shared by all requests, so that those that arrive together are looked up together."""
    subscribed: Callable[["Context"], AbstractContextManager[None]] = lambda _: nullcontext()
    """Counts a subscription of the caller; see `sessions`."""
    connection_params: dict[str, Any] | None = None
    secret: str = ""
    is_refused_unread: bool = False
    """Its address has sent too many wrong tokens."""

    # Loaders are made when they are used, because most operations need none.

    @cached_property
    def hosts(self) -> Loader[tuple[int, Shown], ExecutorHost | None]:
        return Loader(self._hosts)

    @cached_property
    def jobs(self) -> Loader[tuple[int, bool], ContainerJob | None]:
        return Loader(self._jobs)

    @cached_property
    def attempts(self) -> Loader[int, list[JobAttempt]]:
        return _certain(self.service.jobs.earlier_attempts)

    @cached_property
    def outputs(self) -> Loader[Wanted, list[LogLine]]:
        return _certain(self._outputs)

    @cached_property
    def refusals(self) -> Loader[str, QueueRefusal | None]:
        return _optional(self.service.jobs.refusals)

    @cached_property
    def decisions(self) -> Loader[int, RoutingDecision | None]:
        return _optional(self.service.decisions.by_ids)

    @cached_property
    def decisions_of_job(self) -> Loader[int, list[RoutingDecision]]:
        return _certain(self.service.decisions.of_jobs)

    @cached_property
    def evaluations(self) -> Loader[int, Recorded | None]:
        return _optional(self.service.decisions.evaluations)

    @cached_property
    def suggestions(self) -> Loader[JobRequirements, list[Suggestion]]:
        return _certain(self.service.decisions.suggestions)

    async def _outputs(self, wanted: Iterable[Wanted]) -> Mapping[Wanted, list[LogLine]]:
        try:
            return await self.service.jobs.outputs(wanted, LARGEST_ANSWER)
        except TooMuchTextError as error:
            raise too_much(LARGEST_ANSWER, TEXT) from error

    async def _hosts(self, keys: list[tuple[int, Shown]]) -> list[ExecutorHost | None]:
        """Hosts by their ids, and what of them is shown."""
        shown = Shown(*(any(parts) for parts in zip(*(wanted for _, wanted in keys), strict=True)))
        found = await self.service.hosts.by_ids({pk for pk, _ in keys}, shown)
        return [found.get(pk) for pk, _ in keys]

    async def _jobs(self, keys: list[tuple[int, bool]]) -> list[ContainerJob | None]:
        """Jobs by their ids, and whether their long texts are wanted."""
        found = await self.service.jobs.by_ids({pk for pk, _ in keys}, with_texts=any(wanted for _, wanted in keys))
        return [found.get(pk) for pk, _ in keys]

    @property
    def actor(self) -> Actor:
        assert self.identity is not None  # noqa: S101 - the view refuses callers without a token
        return self.identity.actor


Info = strawberry.Info[Context, None]
