from typing import Literal, Union

from pydantic import Field

from container_manager.client.values import Value

from .fragments import HostFields, HostFieldsCapacity, HostFieldsHealth  # noqa: F401


class DeclareHostLost(Value):
    declare_host_lost: Union[
        "DeclareHostLostDeclareHostLostExecutorHost",
        "DeclareHostLostDeclareHostLostValidationFailed",
        "DeclareHostLostDeclareHostLostNotFound",
        "DeclareHostLostDeclareHostLostConflict",
    ] = Field(validation_alias="declareHostLost", serialization_alias="declareHostLost", discriminator="typename__")


class DeclareHostLostDeclareHostLostExecutorHost(HostFields):
    typename__: Literal["ExecutorHost"] = Field(validation_alias="__typename", serialization_alias="__typename")


class DeclareHostLostDeclareHostLostValidationFailed(Value):
    typename__: Literal["ValidationFailed"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    fields: list["DeclareHostLostDeclareHostLostValidationFailedFields"]


class DeclareHostLostDeclareHostLostValidationFailedFields(Value):
    field: str
    message: str
    reason: str


class DeclareHostLostDeclareHostLostNotFound(Value):
    typename__: Literal["NotFound"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str


class DeclareHostLostDeclareHostLostConflict(Value):
    typename__: Literal["Conflict"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    field: str | None


DeclareHostLost.model_rebuild()
DeclareHostLostDeclareHostLostValidationFailed.model_rebuild()
