"""The audit log."""

from datetime import datetime
from typing import Self

import strawberry

from container_manager import models
from graphql_api.ids import to_global


@strawberry.type(description="A change that a client has made, or tokens that were refused.")
class AuditEntry:
    id: strawberry.ID
    at: datetime
    actor: str = strawberry.field(description="The name of the token.")
    address: str
    action: str
    target: str
    result: str = strawberry.field(
        description="DONE, or why not: CONFLICT, NOT_FOUND; FORBIDDEN for a role that may not; UNAUTHENTICATED for "
        "wrong tokens."
    )
    detail: str = strawberry.field(description="What was changed, or the error that was answered.")

    @classmethod
    def of(cls, row: models.AuditEntry) -> Self:
        return cls(
            id=strawberry.ID(to_global("AuditEntry", row.pk)),
            at=row.at,
            actor=row.actor,
            address=row.address,
            action=row.action,
            target=row.target,
            result=row.result,
            detail=row.detail,
        )
