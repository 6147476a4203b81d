"""Events as they are committed."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import strawberry
from graphql import GraphQLError

from container_manager.errors import NotFound
from container_manager.following import StoppingError
from container_manager.store import events as event_store
from container_manager.store import threads
from graphql_api import ids
from graphql_api.auth import UNAUTHENTICATED, still_valid
from graphql_api.context import Info
from graphql_api.inputs import RoutingEventFilter
from graphql_api.logs import LogLine, log_cursor, log_line
from graphql_api.types import RoutingEvent

STOPPING = GraphQLError(
    "The service is stopping; subscribe again after the last cursor.", extensions={"code": "UNAVAILABLE"}
)


@strawberry.type
class Subscription:
    @strawberry.subscription(description="After a cursor: everything since, then live. Without: live from now.")
    async def routing_events(
        self, info: Info, after: str | None = None, filters: RoutingEventFilter | None = None
    ) -> AsyncGenerator[RoutingEvent, None]:
        wanted = filters.wanted() if filters else lambda _: True
        cursor = ids.from_cursor(after)
        if cursor is not None and cursor > await threads.read(event_store.newest):
            ids.bad_input(f"after: {after!r} is beyond the newest event; read eventCursor again.")
        async for event in info.context.service.events.subscribe(cursor, wanted):
            if not await still_valid(info.context):
                raise UNAUTHENTICATED
            yield RoutingEvent.of(event)

    @strawberry.subscription(
        description="From `after` or the start, then live until the job has ended and the last line is out. Cursors "
        "are those of ContainerJob.logs."
    )
    async def job_logs(self, info: Info, id: strawberry.ID, after: str | None = None) -> AsyncGenerator[LogLine, None]:
        lines = info.context.service.follow(ids.to_pk("ContainerJob", id), log_cursor(after))
        async with aclosing(lines):
            try:
                async for line in lines:
                    if not await still_valid(info.context):
                        raise UNAUTHENTICATED
                    yield log_line(line)
            except NotFound as error:
                ids.bad_input(f"id: {error}")
            except StoppingError:
                raise STOPPING from None
