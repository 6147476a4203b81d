from typing import Literal, Union

from pydantic import Field

from container_manager.client.values import Value

from .fragments import JobFields, JobFieldsHost, JobFieldsWaitingOn  # noqa: F401


class SubmitJob(Value):
    submit_job: Union[
        "SubmitJobSubmitJobContainerJob",
        "SubmitJobSubmitJobValidationFailed",
        "SubmitJobSubmitJobConflict",
    ] = Field(validation_alias="submitJob", serialization_alias="submitJob", discriminator="typename__")


class SubmitJobSubmitJobContainerJob(JobFields):
    typename__: Literal["ContainerJob"] = Field(validation_alias="__typename", serialization_alias="__typename")


class SubmitJobSubmitJobValidationFailed(Value):
    typename__: Literal["ValidationFailed"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    fields: list["SubmitJobSubmitJobValidationFailedFields"]


class SubmitJobSubmitJobValidationFailedFields(Value):
    field: str
    message: str
    reason: str


class SubmitJobSubmitJobConflict(Value):
    typename__: Literal["Conflict"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    field: str | None


SubmitJob.model_rebuild()
SubmitJobSubmitJobValidationFailed.model_rebuild()
