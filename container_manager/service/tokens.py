"""API tokens: authenticating requests, and managing tokens from the command line."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from container_manager import clock
from container_manager.aio import start_detached
from container_manager.errors import Unavailable
from container_manager.models import ApiToken
from container_manager.process import Process
from container_manager.store import threads
from container_manager.store import tokens as token_store
from container_manager.store.tokens import NewToken
from container_manager.store.transaction import Actor, commit_one

USE_RECORDED_EVERY = timedelta(minutes=1)
COMMAND_LINE = Actor("command line")


class Tokens:
    """The use cases about tokens in a running service."""

    def __init__(self, process: Process) -> None:
        self._writer = process.writer
        self._recording: set[int] = set()
        self._tasks: set[asyncio.Task[object]] = set()

    async def authenticate(self, secrets: Sequence[str]) -> list[ApiToken | None]:
        """The token of each secret, or None. Records the use of a token at most once a minute."""
        found = await threads.read(token_store.find, set(secrets))
        since = clock.now() - USE_RECORDED_EVERY
        stale = [token.pk for token in found.values() if token.last_used_at is None or token.last_used_at < since]
        for pk in set(stale) - self._recording:
            self._recording.add(pk)
            start_detached(self._record_use(pk), "recording the use of a token", self._tasks)
        return [found.get(secret) for secret in secrets]

    async def _record_use(self, pk: int) -> None:
        """Record it without letting the client wait for the writer, which may be busy, overloaded or stopping."""
        try:
            with suppress(Unavailable, *threads.DATABASE_AWAY):
                await self._writer.write_for_client(token_store.touch, pk)
        finally:
            self._recording.discard(pk)

    async def any_exist(self) -> bool:
        """Whether there is any token."""
        return await threads.read(token_store.any_exist)


def create(name: str, role: str, expires: timedelta | None = None) -> str:
    """Create a token; returns its secret. Raises Conflict if the name exists. For commands: not on the event loop."""
    secret: str = commit_one(token_store.create, NewToken(name, role, expires, COMMAND_LINE))
    return secret


def revoke(name: str) -> None:
    """Revoke a token. Raises NotFound if it does not exist. For commands: not on the event loop."""
    commit_one(token_store.revoke, (name, COMMAND_LINE))


def listed() -> list[ApiToken]:
    """All tokens, by name. For commands: not on the event loop."""
    return token_store.listed()
