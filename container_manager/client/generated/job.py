from typing import Optional

from container_manager.client.values import Value

from .fragments import JobDetails


class Job(Value):
    job: Optional["JobJob"]


JobJob = JobDetails
Job.model_rebuild()
