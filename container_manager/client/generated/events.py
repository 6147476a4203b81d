from pydantic import Field

from container_manager.client.values import Value

from .fragments import EventFields


class Events(Value):
    routing_events: "EventsRoutingEvents" = Field(validation_alias="routingEvents", serialization_alias="routingEvents")


EventsRoutingEvents = EventFields
Events.model_rebuild()
