"""Who may do what: a token's role on every root field."""

from collections.abc import Mapping
from typing import Any

from graphql import GraphQLError
from strawberry.permission import BasePermission

from container_manager.models import Role
from container_manager.service import Service
from container_manager.store.transaction import Actor
from graphql_api.context import Context, Identity, Info

NO_AUTH = "no-auth"

UNAUTHENTICATED = GraphQLError(
    "A valid token is needed: send it as `Authorization: Bearer TOKEN`, over WebSocket in connection_init's payload.",
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


async def identify(service: Service, credentials: object, address: str) -> Identity | None:
    """The caller of an Authorization value, or None."""
    if not isinstance(credentials, str):
        return None
    scheme, _, secret = credentials.partition(" ")
    if scheme.lower() != "bearer" or not secret:
        return None
    token = await service.authenticate(secret.strip())
    return None if token is None else Identity(Actor(token.name, address, token.pk), Role(token.role))


async def identify_connection(context: Context) -> Identity | None:
    """The caller of a WebSocket, by the payload of its connection_init."""
    params: Mapping[str, Any] = context.connection_params or {}
    credentials = params.get("Authorization", params.get("authorization"))
    return await identify(context.service, credentials, context.address)
