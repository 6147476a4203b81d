from typing import Optional

from pydantic import Field

from container_manager.client.values import Value

from .enums import JobStatus
from .fragments import (  # noqa: F401
    DecisionFields,
    DecisionFieldsHost,
    DecisionFieldsRejections,
    HostChecks,
    Refusal,
)


class Explain(Value):
    job: Optional["ExplainJob"]


class ExplainJob(Value):
    id: str
    name: str
    status: JobStatus
    waiting_on: Optional["ExplainJobWaitingOn"] = Field(validation_alias="waitingOn", serialization_alias="waitingOn")
    decisions: list["ExplainJobDecisions"]


ExplainJobWaitingOn = Refusal


class ExplainJobDecisions(DecisionFields):
    hosts: "ExplainJobDecisionsHosts"


class ExplainJobDecisionsHosts(Value):
    edges: list["ExplainJobDecisionsHostsEdges"]
    page_info: "ExplainJobDecisionsHostsPageInfo" = Field(validation_alias="pageInfo", serialization_alias="pageInfo")


class ExplainJobDecisionsHostsEdges(Value):
    node: "ExplainJobDecisionsHostsEdgesNode"


ExplainJobDecisionsHostsEdgesNode = HostChecks


class ExplainJobDecisionsHostsPageInfo(Value):
    has_next_page: bool = Field(validation_alias="hasNextPage", serialization_alias="hasNextPage")


Explain.model_rebuild()
ExplainJob.model_rebuild()
ExplainJobDecisions.model_rebuild()
ExplainJobDecisionsHosts.model_rebuild()
ExplainJobDecisionsHostsEdges.model_rebuild()
