"""The audit log."""

from datetime import datetime
from typing import Self

import strawberry
from django.db.models import Q

from container_manager import models
from graphql_api.context import Info
from graphql_api.ids import to_global
from graphql_api.types.pages import Node


@strawberry.type(description="A change that a client has made, or tokens that were refused.")
class AuditEntry(Node):
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


async def entry(info: Info, pk: int) -> AuditEntry | None:
    """The entry with this primary key."""
    rows = await info.context.service.tokens.audit_log(1, Q(pk=pk))
    return AuditEntry.of(rows[0]) if rows else None
