"""Authentication, and the role that a root field needs."""

import logging
import time
from typing import Any

from graphql import GraphQLError
from strawberry.permission import BasePermission

from container_manager.domain.kinds import Role
from container_manager.store import threads
from container_manager.store.transaction import Actor
from graphql_api.context import Context, Identity, Info

logger = logging.getLogger(__name__)

NO_AUTH = "no-auth"
CHECK_SECONDS = 1.0

UNAUTHENTICATED = GraphQLError(
    "A valid token is needed: send it as `Authorization: Bearer TOKEN`, "
    "over WebSocket under the same key in connection_init's payload.",
    extensions={"code": "UNAUTHENTICATED"},
)


class _HasRole(BasePermission):
    role: Role
    error_extensions = {"code": "FORBIDDEN"}

    def has_permission(self, source: Any, info: Info, **kwargs: Any) -> bool:  # noqa: ARG002
        identity = info.context.identity
        return identity is not None and identity.may(self.role)


class IsOperator(_HasRole):
    """May change jobs."""

    role = Role.OPERATOR
    message = "This needs a token with the role operator or admin."


class IsAdmin(_HasRole):
    """May change hosts."""

    role = Role.ADMIN
    message = "This needs a token with the role admin."


async def identify(context: Context, credentials: object) -> None:
    """Set the caller's identity from an Authorization value; it stays None when the value is not valid."""
    scheme, _, secret = credentials.partition(" ") if isinstance(credentials, str) else ("", "", "")
    if scheme.lower() != "bearer" or not secret:
        return
    context.secret = secret.strip()
    await _look_up(context)


async def still_valid(context: Context) -> bool:
    """Whether the token is still valid; looked up again every CHECK_SECONDS, for all callers at the same moment."""
    if context.secret and _moment() != context.checked_at:
        try:
            await _look_up(context)
        except threads.DATABASE_AWAY:
            # Its validity is unknown while the database does not answer; it is looked up again soon.
            logger.warning("a token could not be looked up again; it counts as before")
    return context.identity is not None


def _moment() -> int:
    return int(time.monotonic() / CHECK_SECONDS)


async def _look_up(context: Context) -> None:
    assert context.tokens is not None  # noqa: S101 - a context with a secret comes from the view
    context.checked_at = _moment()
    token = await context.tokens.load(context.secret)
    context.identity = Identity(Actor(token.name, context.address, token.pk), Role(token.role)) if token else None
