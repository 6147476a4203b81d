from pydantic import Field

from container_manager.client.values import Value

from .fragments import JobFields


class Jobs(Value):
    jobs: "JobsJobs"


class JobsJobs(Value):
    edges: list["JobsJobsEdges"]
    page_info: "JobsJobsPageInfo" = Field(validation_alias="pageInfo", serialization_alias="pageInfo")


class JobsJobsEdges(Value):
    node: "JobsJobsEdgesNode"


JobsJobsEdgesNode = JobFields


class JobsJobsPageInfo(Value):
    has_next_page: bool = Field(validation_alias="hasNextPage", serialization_alias="hasNextPage")
    end_cursor: str | None = Field(validation_alias="endCursor", serialization_alias="endCursor")


Jobs.model_rebuild()
JobsJobs.model_rebuild()
JobsJobsEdges.model_rebuild()
