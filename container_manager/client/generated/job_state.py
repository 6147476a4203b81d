from typing import Optional

from pydantic import Field

from container_manager.client.values import Value

from .fragments import JobFields


class JobState(Value):
    job: Optional["JobStateJob"]
    event_cursor: str = Field(validation_alias="eventCursor", serialization_alias="eventCursor")


JobStateJob = JobFields
JobState.model_rebuild()
