from typing import Annotated, Literal, Optional, Union

from pydantic import Field

from container_manager.client.values import Value

from .enums import CheckCode, Verdict


class Plan(Value):
    plan_routing: "PlanPlanRouting" = Field(validation_alias="planRouting", serialization_alias="planRouting")


class PlanPlanRouting(Value):
    waiting_placed: int = Field(validation_alias="waitingPlaced", serialization_alias="waitingPlaced")
    waiting: list["PlanPlanRoutingWaiting"]
    placements: list[
        Annotated[
            Union[
                "PlanPlanRoutingPlacementsPlacement",
                "PlanPlanRoutingPlacementsRoutingRefused",
                "PlanPlanRoutingPlacementsValidationFailed",
                "PlanPlanRoutingPlacementsNotFound",
            ],
            Field(discriminator="typename__"),
        ]
    ]


class PlanPlanRoutingWaiting(Value):
    host_name: str = Field(validation_alias="hostName", serialization_alias="hostName")
    job: Optional["PlanPlanRoutingWaitingJob"]


class PlanPlanRoutingWaitingJob(Value):
    id: str
    name: str
    image: str


class PlanPlanRoutingPlacementsPlacement(Value):
    typename__: Literal["Placement"] = Field(validation_alias="__typename", serialization_alias="__typename")
    reason: str
    host_name: str = Field(validation_alias="hostName", serialization_alias="hostName")


class PlanPlanRoutingPlacementsRoutingRefused(Value):
    typename__: Literal["RoutingRefused"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    verdict: Verdict
    rejections: list["PlanPlanRoutingPlacementsRoutingRefusedRejections"]
    suggestions: list["PlanPlanRoutingPlacementsRoutingRefusedSuggestions"]


class PlanPlanRoutingPlacementsRoutingRefusedRejections(Value):
    code: CheckCode
    hosts: int


class PlanPlanRoutingPlacementsRoutingRefusedSuggestions(Value):
    message: str
    hosts: int


class PlanPlanRoutingPlacementsValidationFailed(Value):
    typename__: Literal["ValidationFailed"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str
    fields: list["PlanPlanRoutingPlacementsValidationFailedFields"]


class PlanPlanRoutingPlacementsValidationFailedFields(Value):
    field: str
    message: str
    reason: str


class PlanPlanRoutingPlacementsNotFound(Value):
    typename__: Literal["NotFound"] = Field(validation_alias="__typename", serialization_alias="__typename")
    message: str


Plan.model_rebuild()
PlanPlanRouting.model_rebuild()
PlanPlanRoutingWaiting.model_rebuild()
PlanPlanRoutingPlacementsRoutingRefused.model_rebuild()
PlanPlanRoutingPlacementsValidationFailed.model_rebuild()
