"""Events."""

from datetime import datetime
from typing import Self

import strawberry

from container_manager.domain.kinds import EventKind
from container_manager.store import paging
from container_manager.store.events import CursorExpiredError, Event
from graphql_api.context import Info
from graphql_api.ids import bad_input, cursor_expired, to_cursor, to_global
from graphql_api.types.hosts import ExecutorHost, host
from graphql_api.types.jobs import ContainerJob, RoutingDecision, decision, job
from graphql_api.types.pages import Asked, Connection, Node


@strawberry.type(description="One committed fact. Cursors follow commit order: none is skipped, none comes twice.")
class RoutingEvent(Node):
    cursor: str
    kind: EventKind
    at: datetime
    message: str
    attempt: int | None = strawberry.field(description="The attempt of the job that it is about.")
    actor: str = strawberry.field(description='The name of the token that caused it; "" for the service itself.')
    host_name: str = strawberry.field(description="The name stays when the host has been deleted.")
    row: strawberry.Private[Event]

    @strawberry.field(description="As it is now, not as it was then.")
    async def job(self, info: Info) -> ContainerJob | None:
        return await job(info, self.row.job_id)

    @strawberry.field(description="As it is now; null once it has been deleted.")
    async def host(self, info: Info) -> ExecutorHost | None:
        return await host(info, self.row.host_id)

    @strawberry.field
    async def decision(self, info: Info) -> RoutingDecision | None:
        return await decision(info, self.row.decision_id)

    @classmethod
    def of(cls, event: Event) -> Self:
        return cls(
            id=strawberry.ID(to_global("RoutingEvent", event.id)),
            cursor=to_cursor(event.id),
            kind=EventKind(event.kind),
            at=event.at,
            message=event.message,
            attempt=event.attempt,
            actor=event.actor,
            host_name=event.host_name,
            row=event,
        )


async def events(info: Info, asked: Asked) -> Connection[RoutingEvent]:
    """A page of events.

    Raises:
        GraphQLError: BAD_USER_INPUT or CURSOR_EXPIRED, a client that follows the events would miss some.
    """
    # A client that goes back in time misses nothing.
    after = asked.position[0] if asked.position and asked.search.order == paging.OLDEST_FIRST else None
    await check_known(info, after)
    try:
        found = await info.context.service.events.page(asked.search, asked.position, asked.limit, after)
    except CursorExpiredError as error:
        raise cursor_expired(error) from None
    return Connection(**asked.connection(found, lambda row: RoutingEvent.of(Event.of(row))))


async def check_known(info: Info, cursor: int | None) -> None:
    """Raise BAD_USER_INPUT for a cursor that no event has had yet."""
    if cursor is not None and cursor > await info.context.service.events.newest_cursor():
        bad_input(f"after: {to_cursor(cursor)} is beyond the newest event; read eventCursor again.")


async def event(info: Info, pk: int | None) -> RoutingEvent | None:
    """The event with this primary key."""
    row = (await info.context.service.events.by_ids([pk])).get(pk) if pk else None
    return RoutingEvent.of(row) if row else None
