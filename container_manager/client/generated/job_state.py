from typing import Optional

from container_manager.client.values import Value

from .fragments import JobFields


class JobState(Value):
    job: Optional["JobStateJob"]


JobStateJob = JobFields
JobState.model_rebuild()
