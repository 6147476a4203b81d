"""Events as they are committed."""

from collections.abc import AsyncGenerator

import strawberry

from container_manager.store import events as event_store
from container_manager.store import threads
from graphql_api import ids
from graphql_api.auth import UNAUTHENTICATED, still_valid
from graphql_api.context import Info
from graphql_api.inputs import RoutingEventFilter
from graphql_api.types import RoutingEvent


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
