from typing import Literal, Union

from pydantic import Field

from container_manager.client.values import Value

from .fragments import HostFields, HostFieldsCapacity, HostFieldsHealth  # noqa: F401


class DrainHost(Value):
    drain_host: Union[
        "DrainHostDrainHostExecutorHost",
        "DrainHostDrainHostValidationFailed",
        "DrainHostDrainHostNotFound",
        "DrainHostDrainHostConflict",
    ] = Field(validation_alias="drainHost", serialization_alias="drainHost", discriminator="typename__")


class DrainHostDrainHostExecutorHost(HostFields):
    typename__: Literal["ExecutorHost"] = Field(validation_alias="__typename", serialization_alias="__typename")


class DrainHostDrainHostValidationFailed(Value):
    typename__: Literal["ValidationFailed"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    fields: list["DrainHostDrainHostValidationFailedFields"]


class DrainHostDrainHostValidationFailedFields(Value):
    field: str
    message: str
    reason: str


class DrainHostDrainHostNotFound(Value):
    typename__: Literal["NotFound"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str


class DrainHostDrainHostConflict(Value):
    typename__: Literal["Conflict"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    field: str | None


DrainHost.model_rebuild()
DrainHostDrainHostValidationFailed.model_rebuild()
