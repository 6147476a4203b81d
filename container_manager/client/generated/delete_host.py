from typing import Literal, Union

from pydantic import Field

from container_manager.client.values import Value

from .fragments import HostFields, HostFieldsCapacity, HostFieldsHealth  # noqa: F401


class DeleteHost(Value):
    delete_host: Union[
        "DeleteHostDeleteHostExecutorHost",
        "DeleteHostDeleteHostValidationFailed",
        "DeleteHostDeleteHostNotFound",
        "DeleteHostDeleteHostConflict",
    ] = Field(validation_alias="deleteHost", serialization_alias="deleteHost", discriminator="typename__")


class DeleteHostDeleteHostExecutorHost(HostFields):
    typename__: Literal["ExecutorHost"] = Field(validation_alias="__typename", serialization_alias="__typename")


class DeleteHostDeleteHostValidationFailed(Value):
    typename__: Literal["ValidationFailed"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    fields: list["DeleteHostDeleteHostValidationFailedFields"]


class DeleteHostDeleteHostValidationFailedFields(Value):
    field: str
    message: str
    reason: str


class DeleteHostDeleteHostNotFound(Value):
    typename__: Literal["NotFound"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str


class DeleteHostDeleteHostConflict(Value):
    typename__: Literal["Conflict"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    field: str | None


DeleteHost.model_rebuild()
DeleteHostDeleteHostValidationFailed.model_rebuild()
