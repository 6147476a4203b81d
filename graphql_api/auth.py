"""Authentication, and the role that a root field needs."""

from collections.abc import Sequence
from typing import Any

from graphql import GraphQLError
from strawberry.permission import BasePermission

from container_manager.domain.kinds import Role
from container_manager.store.tokens import Credential
from container_manager.store.transaction import Actor
from graphql_api.context import Context, Identity, Info

NO_AUTH = "no-auth"

UNAUTHENTICATED = GraphQLError(
    "A valid token is needed: send it as `Authorization: Bearer TOKEN`, "
    "over WebSocket under the same key in connection_init's payload.",
    extensions={"code": "UNAUTHENTICATED"},
)
UNKNOWN = GraphQLError(
    "The token is unknown: it may have been revoked, have expired, or belong to another installation.",
    extensions={"code": "UNAUTHENTICATED"},
)
NO_SCHEME = GraphQLError(
    "The Authorization must be the word Bearer, a space, and the token.", extensions={"code": "UNAUTHENTICATED"}
)

TOO_MANY_REFUSED = GraphQLError(
    "Too many wrong tokens came from this address; try again in a minute.",
    extensions={"code": "LIMIT_EXCEEDED"},
)


class _HasRole(BasePermission):
    role: Role
    error_extensions = {"code": "FORBIDDEN"}

    def has_permission(self, source: Any, info: Info, **kwargs: Any) -> bool:  # noqa: ARG002
        identity = info.context.identity
        if identity is None:
            return False
        allowed = identity.may(self.role)
        if not allowed:
            info.context.service.tokens.note_forbidden(identity.actor, info.field_name)
        return allowed


class IsOperator(_HasRole):
    """May change jobs."""

    role = Role.OPERATOR
    message = "This needs a token with the role operator or admin."


class IsAdmin(_HasRole):
    """May change hosts."""

    role = Role.ADMIN
    message = "This needs a token with the role admin."


def refusal(context: Context, credentials: object) -> GraphQLError:
    """Why a caller with this Authorization value was not let in."""
    if context.is_refused_unread:
        return TOO_MANY_REFUSED
    if not credentials:
        return UNAUTHENTICATED
    return UNKNOWN if secret_of(credentials) else NO_SCHEME


def secret_of(credentials: object) -> str:
    """The token in an Authorization value; "" when there is none."""
    scheme, _, secret = credentials.partition(" ") if isinstance(credentials, str) else ("", "", "")
    return secret.strip() if scheme.lower() == "bearer" else ""


async def identify(context: Context, credentials: object) -> None:
    """Set the caller's identity from an Authorization value; it stays None when the value is not valid."""
    if not (secret := secret_of(credentials)):
        return
    assert context.tokens is not None  # noqa: S101 - a caller without a token is given none where none is needed
    tokens = context.service.tokens
    context.is_refused_unread = tokens.is_refused_unread(context.address, secret)
    if context.is_refused_unread:
        tokens.note_refused(context.address)
        return
    context.secret = secret
    found = tokens.known(secret)
    if found is None:
        found = await (tokens.verify(secret) if tokens.is_signed(secret) else context.tokens.load(secret))
    context.identity = _identity(context, found)
    if context.identity is None:
        tokens.note_refused(context.address)


async def look_up(contexts: Sequence[Context]) -> None:
    """Look the tokens of these contexts up again, and set their identities."""
    if not contexts:
        return
    tokens = contexts[0].service.tokens
    signed = [context for context in contexts if tokens.is_signed(context.secret)]
    own = [context for context in contexts if not tokens.is_signed(context.secret)]
    secrets = list({context.secret for context in own})
    found = dict(zip(secrets, await tokens.authenticate(secrets), strict=True)) if secrets else {}
    for context in own:
        context.identity = _identity(context, found[context.secret])
    # After those of our own, because the issuer may let them wait.
    for context in signed:
        context.identity = _identity(context, await tokens.verify(context.secret))


def _identity(context: Context, found: Credential | None) -> Identity | None:
    if found is None:
        return None
    return Identity(Actor(found.name, context.address, found.token_id), found.role, found.expires_at)
