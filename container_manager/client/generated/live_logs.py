from datetime import datetime

from pydantic import Field

from container_manager.client.values import Value

from .enums import LogStream


class LiveLogs(Value):
    job_logs: "LiveLogsJobLogs" = Field(validation_alias="jobLogs", serialization_alias="jobLogs")


class LiveLogsJobLogs(Value):
    cursor: str
    stream: LogStream
    at: datetime
    text: str


LiveLogs.model_rebuild()
