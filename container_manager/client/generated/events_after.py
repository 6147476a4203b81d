from pydantic import Field

from container_manager.client.values import Value

from .fragments import EventFields


class EventsAfter(Value):
    routing_events: "EventsAfterRoutingEvents" = Field(
        validation_alias="routingEvents", serialization_alias="routingEvents"
    )


class EventsAfterRoutingEvents(Value):
    edges: list["EventsAfterRoutingEventsEdges"]
    page_info: "EventsAfterRoutingEventsPageInfo" = Field(validation_alias="pageInfo", serialization_alias="pageInfo")


class EventsAfterRoutingEventsEdges(Value):
    node: "EventsAfterRoutingEventsEdgesNode"


EventsAfterRoutingEventsEdgesNode = EventFields


class EventsAfterRoutingEventsPageInfo(Value):
    has_next_page: bool = Field(validation_alias="hasNextPage", serialization_alias="hasNextPage")
    end_cursor: str | None = Field(validation_alias="endCursor", serialization_alias="endCursor")


EventsAfter.model_rebuild()
EventsAfterRoutingEvents.model_rebuild()
EventsAfterRoutingEventsEdges.model_rebuild()
