from typing import Annotated, Literal, Union

from pydantic import Field

from container_manager.client.values import Value

from .fragments import JobFields, JobFieldsHost, JobFieldsWaitingOn  # noqa: F401


class SubmitJobs(Value):
    submit_jobs: list[
        Annotated[
            Union[
                "SubmitJobsSubmitJobsContainerJob",
                "SubmitJobsSubmitJobsValidationFailed",
                "SubmitJobsSubmitJobsConflict",
            ],
            Field(discriminator="typename__"),
        ]
    ] = Field(validation_alias="submitJobs", serialization_alias="submitJobs")


class SubmitJobsSubmitJobsContainerJob(JobFields):
    typename__: Literal["ContainerJob"] = Field(validation_alias="__typename", serialization_alias="__typename")


class SubmitJobsSubmitJobsValidationFailed(Value):
    typename__: Literal["ValidationFailed"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    fields: list["SubmitJobsSubmitJobsValidationFailedFields"]


class SubmitJobsSubmitJobsValidationFailedFields(Value):
    field: str
    message: str
    reason: str


class SubmitJobsSubmitJobsConflict(Value):
    typename__: Literal["Conflict"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    field: str | None


SubmitJobs.model_rebuild()
SubmitJobsSubmitJobsValidationFailed.model_rebuild()
