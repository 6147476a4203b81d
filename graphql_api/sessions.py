"""What is open at a time: connections and event streams. Each ends soon after its token has expired or was revoked."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager

from graphql import GraphQLError

from container_manager import configuration
from container_manager.aio import start_detached
from container_manager.store import threads
from graphql_api import auth
from graphql_api.context import Context

CHECK_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Sessions:
    """The open connections and streams of this process."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[Context, Callable[[], Coroutine[None, None, None]]]] = {}
        self._subscriptions: Counter[str] = Counter()
        self._ending: set[asyncio.Task[object]] = set()
        self._watching: asyncio.Task[object] | None = None

    @contextmanager
    def opened(self, context: Context, end: Callable[[], Coroutine[None, None, None]]) -> Iterator[None]:
        """Call `end` if the token of the context becomes invalid during the block."""
        self._open[id(context)] = (context, end)
        if self._watching is None or self._watching.done():
            self._watching = start_detached(self._watch(), "checking tokens")
        try:
            yield
        finally:
            del self._open[id(context)]

    @contextmanager
    def subscribed(self, context: Context) -> Iterator[None]:
        """Count a subscription of the context's token during the block.

        Raises:
            GraphQLError: LIMIT_EXCEEDED, the token has as many as it may have.
        """
        most: int = configuration.current().max_subscriptions
        token = context.actor.name
        if self._subscriptions[token] >= most:
            raise GraphQLError(
                f"The token has {most} subscriptions on this process; end some, or set "
                "CONTAINER_MANAGER_MAX_SUBSCRIPTIONS.",
                extensions={"code": "LIMIT_EXCEEDED"},
            )
        self._subscriptions[token] += 1
        try:
            yield
        finally:
            self._subscriptions[token] -= 1
            if not self._subscriptions[token]:
                del self._subscriptions[token]

    async def _watch(self) -> None:
        while self._open:
            await asyncio.sleep(CHECK_SECONDS)
            known = [(context, end) for context, end in self._open.values() if context.secret and context.identity]
            try:
                await auth.look_up([context for context, _ in known])
            except threads.DATABASE_AWAY:
                # Their validity is unknown while the database does not answer.
                logger.warning("tokens could not be looked up again; they count as before")
                continue
            except Exception:
                logger.exception("tokens could not be looked up again")
                continue
            for context, end in known:
                if context.identity is None:
                    # Not awaited: a client that reads nothing would hold up the others.
                    start_detached(end(), "ending what a token has opened", self._ending)
