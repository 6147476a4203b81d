from typing import Literal, Union

from pydantic import Field

from container_manager.client.values import Value

from .fragments import HostFields, HostFieldsCapacity, HostFieldsHealth  # noqa: F401


class UpdateHost(Value):
    update_host: Union[
        "UpdateHostUpdateHostExecutorHost",
        "UpdateHostUpdateHostValidationFailed",
        "UpdateHostUpdateHostNotFound",
        "UpdateHostUpdateHostConflict",
    ] = Field(validation_alias="updateHost", serialization_alias="updateHost", discriminator="typename__")


class UpdateHostUpdateHostExecutorHost(HostFields):
    typename__: Literal["ExecutorHost"] = Field(validation_alias="__typename", serialization_alias="__typename")


class UpdateHostUpdateHostValidationFailed(Value):
    typename__: Literal["ValidationFailed"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    fields: list["UpdateHostUpdateHostValidationFailedFields"]


class UpdateHostUpdateHostValidationFailedFields(Value):
    field: str
    message: str
    reason: str


class UpdateHostUpdateHostNotFound(Value):
    typename__: Literal["NotFound"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str


class UpdateHostUpdateHostConflict(Value):
    typename__: Literal["Conflict"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    field: str | None


UpdateHost.model_rebuild()
UpdateHostUpdateHostValidationFailed.model_rebuild()
