from pydantic import Field

from container_manager.client.values import Value

from .fragments import EventFields


class StoredEvents(Value):
    routing_events: "StoredEventsRoutingEvents" = Field(
        validation_alias="routingEvents", serialization_alias="routingEvents"
    )


class StoredEventsRoutingEvents(Value):
    edges: list["StoredEventsRoutingEventsEdges"]


class StoredEventsRoutingEventsEdges(Value):
    node: "StoredEventsRoutingEventsEdgesNode"


StoredEventsRoutingEventsEdgesNode = EventFields
StoredEvents.model_rebuild()
StoredEventsRoutingEvents.model_rebuild()
StoredEventsRoutingEventsEdges.model_rebuild()
