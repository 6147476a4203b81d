from typing import Literal, Union

from pydantic import Field

from container_manager.client.values import Value

from .fragments import JobFields, JobFieldsHost, JobFieldsWaitingOn  # noqa: F401


class RetryJob(Value):
    retry_job: Union[
        "RetryJobRetryJobContainerJob",
        "RetryJobRetryJobNotFound",
        "RetryJobRetryJobConflict",
    ] = Field(validation_alias="retryJob", serialization_alias="retryJob", discriminator="typename__")


class RetryJobRetryJobContainerJob(JobFields):
    typename__: Literal["ContainerJob"] = Field(validation_alias="__typename", serialization_alias="__typename")


class RetryJobRetryJobNotFound(Value):
    typename__: Literal["NotFound"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str


class RetryJobRetryJobConflict(Value):
    typename__: Literal["Conflict"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    field: str | None


RetryJob.model_rebuild()
