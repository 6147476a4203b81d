from datetime import datetime

from pydantic import Field

from container_manager.client.values import Value

from .enums import CheckCode, Verdict


class Queue(Value):
    queue: "QueueQueue"


class QueueQueue(Value):
    pending: int
    active: int
    oldest_submitted_at: datetime | None = Field(
        validation_alias="oldestSubmittedAt", serialization_alias="oldestSubmittedAt"
    )
    groups: list["QueueQueueGroups"]


class QueueQueueGroups(Value):
    verdict: Verdict
    jobs: int
    oldest_submitted_at: datetime = Field(validation_alias="oldestSubmittedAt", serialization_alias="oldestSubmittedAt")
    rejections: list["QueueQueueGroupsRejections"]


class QueueQueueGroupsRejections(Value):
    code: CheckCode
    hosts: int


Queue.model_rebuild()
QueueQueue.model_rebuild()
QueueQueueGroups.model_rebuild()
