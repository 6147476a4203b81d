"""Who calls, and the API tokens."""

from datetime import datetime
from typing import Annotated, Self

import strawberry

from container_manager import models
from container_manager.domain.kinds import Role
from graphql_api.context import Info
from graphql_api.ids import to_global
from graphql_api.types.pages import Node
from graphql_api.types.results import Conflict, NotFound, ValidationFailed


@strawberry.type(description="The caller: what its token gives.")
class Viewer:
    name: str = strawberry.field(description="The name of the token.")
    role: Role
    expires_at: datetime | None = strawberry.field(description="Null when it does not expire.")


@strawberry.type(description="A token, without its secret.")
class ApiToken(Node):
    name: str
    role: Role
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = strawberry.field(description="Recorded once a minute.")

    @classmethod
    def of(cls, row: models.ApiToken) -> Self:
        return cls(
            id=strawberry.ID(to_global("ApiToken", row.pk)),
            name=row.name,
            role=Role(row.role),
            created_at=row.created_at,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
        )


@strawberry.type(description="A new token. Its secret is shown this once.")
class NewApiToken:
    token: ApiToken
    secret: str


CreateTokenResult = Annotated[NewApiToken | ValidationFailed | Conflict, strawberry.union("CreateTokenResult")]
RevokeTokenResult = Annotated[ApiToken | NotFound | Conflict, strawberry.union("RevokeTokenResult")]


async def token(info: Info, pk: int) -> ApiToken | None:
    """The token with this primary key."""
    return next((ApiToken.of(row) for row in await info.context.service.tokens.listed() if row.pk == pk), None)
