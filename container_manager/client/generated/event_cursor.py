from pydantic import Field

from container_manager.client.values import Value


class EventCursor(Value):
    event_cursor: str = Field(validation_alias="eventCursor", serialization_alias="eventCursor")
