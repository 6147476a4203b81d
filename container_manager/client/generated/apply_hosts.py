from typing import Annotated, Literal, Union

from pydantic import Field

from container_manager.client.values import Value

from .enums import HealthStatus, HostChange


class ApplyHosts(Value):
    apply_hosts: list["ApplyHostsApplyHosts"] = Field(validation_alias="applyHosts", serialization_alias="applyHosts")


class ApplyHostsApplyHosts(Value):
    name: str
    change: HostChange
    difference: str
    result: (
        Annotated[
            Union[
                "ApplyHostsApplyHostsResultExecutorHost",
                "ApplyHostsApplyHostsResultValidationFailed",
                "ApplyHostsApplyHostsResultConflict",
            ],
            Field(discriminator="typename__"),
        ]
        | None
    )


class ApplyHostsApplyHostsResultExecutorHost(Value):
    typename__: Literal["ExecutorHost"] = Field(validation_alias="__typename", serialization_alias="__typename")
    id: str
    health: "ApplyHostsApplyHostsResultExecutorHostHealth"


class ApplyHostsApplyHostsResultExecutorHostHealth(Value):
    status: HealthStatus
    error: str | None


class ApplyHostsApplyHostsResultValidationFailed(Value):
    typename__: Literal["ValidationFailed"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    fields: list["ApplyHostsApplyHostsResultValidationFailedFields"]


class ApplyHostsApplyHostsResultValidationFailedFields(Value):
    field: str
    message: str
    reason: str


class ApplyHostsApplyHostsResultConflict(Value):
    typename__: Literal["Conflict"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    field: str | None


ApplyHosts.model_rebuild()
ApplyHostsApplyHosts.model_rebuild()
ApplyHostsApplyHostsResultExecutorHost.model_rebuild()
ApplyHostsApplyHostsResultValidationFailed.model_rebuild()
