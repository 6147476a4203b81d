"""Events as they are committed."""

from collections.abc import AsyncGenerator

import strawberry

from graphql_api import ids
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
        async for event in info.context.service.events.subscribe(ids.from_cursor(after), wanted):
            yield RoutingEvent.of(event)
