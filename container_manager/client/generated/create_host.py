from typing import Literal, Union

from pydantic import Field

from container_manager.client.values import Value

from .fragments import HostFields, HostFieldsCapacity, HostFieldsHealth  # noqa: F401


class CreateHost(Value):
    create_host: Union[
        "CreateHostCreateHostExecutorHost",
        "CreateHostCreateHostValidationFailed",
        "CreateHostCreateHostNotFound",
        "CreateHostCreateHostConflict",
    ] = Field(validation_alias="createHost", serialization_alias="createHost", discriminator="typename__")


class CreateHostCreateHostExecutorHost(HostFields):
    typename__: Literal["ExecutorHost"] = Field(validation_alias="__typename", serialization_alias="__typename")


class CreateHostCreateHostValidationFailed(Value):
    typename__: Literal["ValidationFailed"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    fields: list["CreateHostCreateHostValidationFailedFields"]


class CreateHostCreateHostValidationFailedFields(Value):
    field: str
    message: str
    reason: str


class CreateHostCreateHostNotFound(Value):
    typename__: Literal["NotFound"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str


class CreateHostCreateHostConflict(Value):
    typename__: Literal["Conflict"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    field: str | None


CreateHost.model_rebuild()
CreateHostCreateHostValidationFailed.model_rebuild()
