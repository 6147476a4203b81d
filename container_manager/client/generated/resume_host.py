from typing import Literal, Union

from pydantic import Field

from container_manager.client.values import Value

from .fragments import HostFields, HostFieldsCapacity, HostFieldsHealth  # noqa: F401


class ResumeHost(Value):
    resume_host: Union[
        "ResumeHostResumeHostExecutorHost",
        "ResumeHostResumeHostValidationFailed",
        "ResumeHostResumeHostNotFound",
        "ResumeHostResumeHostConflict",
    ] = Field(validation_alias="resumeHost", serialization_alias="resumeHost", discriminator="typename__")


class ResumeHostResumeHostExecutorHost(HostFields):
    typename__: Literal["ExecutorHost"] = Field(validation_alias="__typename", serialization_alias="__typename")


class ResumeHostResumeHostValidationFailed(Value):
    typename__: Literal["ValidationFailed"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    fields: list["ResumeHostResumeHostValidationFailedFields"]


class ResumeHostResumeHostValidationFailedFields(Value):
    field: str
    message: str
    reason: str


class ResumeHostResumeHostNotFound(Value):
    typename__: Literal["NotFound"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str


class ResumeHostResumeHostConflict(Value):
    typename__: Literal["Conflict"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    field: str | None


ResumeHost.model_rebuild()
ResumeHostResumeHostValidationFailed.model_rebuild()
