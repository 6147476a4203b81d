from datetime import datetime
from typing import Optional

from pydantic import Field

from container_manager.client.values import Value

from .enums import LogStream


class StoredLogs(Value):
    job: Optional["StoredLogsJob"]


class StoredLogsJob(Value):
    logs: "StoredLogsJobLogs"


class StoredLogsJobLogs(Value):
    edges: list["StoredLogsJobLogsEdges"]
    page_info: "StoredLogsJobLogsPageInfo" = Field(validation_alias="pageInfo", serialization_alias="pageInfo")


class StoredLogsJobLogsEdges(Value):
    node: "StoredLogsJobLogsEdgesNode"


class StoredLogsJobLogsEdgesNode(Value):
    cursor: str
    stream: LogStream
    at: datetime
    text: str


class StoredLogsJobLogsPageInfo(Value):
    has_next_page: bool = Field(validation_alias="hasNextPage", serialization_alias="hasNextPage")
    end_cursor: str | None = Field(validation_alias="endCursor", serialization_alias="endCursor")


StoredLogs.model_rebuild()
StoredLogsJob.model_rebuild()
StoredLogsJobLogs.model_rebuild()
StoredLogsJobLogsEdges.model_rebuild()
