"""The context of a request: its caller, the service, and loaders that batch nested objects."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import strawberry
from graphql import GraphQLError
from strawberry.dataloader import DataLoader

from container_manager.domain.kinds import Role
from container_manager.service import Service
from container_manager.store.tokens import Credential
from container_manager.store.transaction import Actor

K = TypeVar("K")
T = TypeVar("T")

LARGEST_ANSWER = 16_777_216
"""Characters of commands and output in one answer."""

MOST_RECORDS = 5000
"""Attempts and decisions of jobs in one answer: their number is known only when they are read."""

RANKS = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller with a valid token."""

    actor: Actor
    role: Role

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


@dataclass(slots=True)
class _Budget:
    characters: int
    records: int


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)


def begin_operation() -> None:
    """Give the operation that begins in this task its budget; see `Context.spend`."""
    _budget.set(_Budget(LARGEST_ANSWER, MOST_RECORDS))


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

    def spend(self, *, characters: int = 0, records: int = 0) -> None:
        """Count what an operation has read: characters of jobs' texts, and attempts and decisions.

        Raises:
            GraphQLError: BAD_USER_INPUT, it is more than an answer may have.
        """
        if (budget := _budget.get()) is None:
            return
        budget.characters -= characters
        budget.records -= records
        for left, most, what in (
            (budget.characters, LARGEST_ANSWER, "characters of text"),
            (budget.records, MOST_RECORDS, "attempts and decisions"),
        ):
            if left < 0:
                raise GraphQLError(
                    f"The answer would have more than {most} {what}; ask for fewer at a time.",
                    extensions={"code": "BAD_USER_INPUT"},
                )

    def __post_init__(self) -> None:
        hosts, jobs, decisions = self.service.hosts, self.service.jobs, self.service.decisions
        self.hosts = _optional(hosts.by_ids)
        self.jobs = _optional(jobs.by_ids)
        self.attempts = _certain(jobs.earlier_attempts)
        self.outputs = _certain(jobs.outputs)
        self.refusals = _optional(jobs.refusals)
        self.decisions = _optional(decisions.by_ids)
        self.decisions_of_job = _certain(decisions.of_jobs)
        self.evaluations = _optional(decisions.evaluations)
        self.suggestions = _certain(decisions.suggestions)

    @property
    def actor(self) -> Actor:
        assert self.identity is not None  # noqa: S101 - the view refuses callers without a token
        return self.identity.actor


Info = strawberry.Info[Context, None]
