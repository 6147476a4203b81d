"""The context of a request: its caller, the service, and loaders that batch nested objects."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import strawberry
from strawberry.dataloader import DataLoader

from container_manager.domain.kinds import Role
from container_manager.models import ContainerJob, ExecutorHost
from container_manager.service import Service
from container_manager.store.hosts import Shown
from container_manager.store.outputs import LogLine, TooMuchTextError, Wanted
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

    def __post_init__(self) -> None:
        jobs, decisions = self.service.jobs, self.service.decisions
        self.hosts = Loader(self._hosts)
        self.jobs = Loader(self._jobs)
        self.attempts = _certain(jobs.earlier_attempts)
        self.outputs = _certain(self._outputs)
        self.refusals = _optional(jobs.refusals)
        self.decisions = _optional(decisions.by_ids)
        self.decisions_of_job = _certain(decisions.of_jobs)
        self.evaluations = _optional(decisions.evaluations)
        self.suggestions = _certain(decisions.suggestions)

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
