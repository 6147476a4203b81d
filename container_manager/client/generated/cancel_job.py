from typing import Literal, Union

from pydantic import Field

from container_manager.client.values import Value

from .fragments import JobFields, JobFieldsHost, JobFieldsWaitingOn  # noqa: F401


class CancelJob(Value):
    cancel_job: Union[
        "CancelJobCancelJobContainerJob",
        "CancelJobCancelJobNotFound",
        "CancelJobCancelJobConflict",
    ] = Field(validation_alias="cancelJob", serialization_alias="cancelJob", discriminator="typename__")


class CancelJobCancelJobContainerJob(JobFields):
    typename__: Literal["ContainerJob"] = Field(validation_alias="__typename", serialization_alias="__typename")


class CancelJobCancelJobNotFound(Value):
    typename__: Literal["NotFound"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str


class CancelJobCancelJobConflict(Value):
    typename__: Literal["Conflict"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    field: str | None


CancelJob.model_rebuild()
