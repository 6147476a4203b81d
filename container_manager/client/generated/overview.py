from datetime import datetime

from pydantic import Field

from container_manager.client.values import Value

from .enums import CheckCode, RoutingEventKind, Verdict
from .fragments import HostFields


class Overview(Value):
    job_stats: "OverviewJobStats" = Field(validation_alias="jobStats", serialization_alias="jobStats")
    queue: "OverviewQueue"
    hosts: "OverviewHosts"
    routing_events: "OverviewRoutingEvents" = Field(
        validation_alias="routingEvents", serialization_alias="routingEvents"
    )


class OverviewJobStats(Value):
    unfinished: "OverviewJobStatsUnfinished"
    total: "OverviewJobStatsTotal"


class OverviewJobStatsUnfinished(Value):
    pending: int
    routed: int
    launching: int
    running: int


class OverviewJobStatsTotal(Value):
    submitted: int
    succeeded: int
    failed: int
    timed_out: int = Field(validation_alias="timedOut", serialization_alias="timedOut")
    cancelled: int
    queue_time: "OverviewJobStatsTotalQueueTime" = Field(validation_alias="queueTime", serialization_alias="queueTime")
    run_time: "OverviewJobStatsTotalRunTime" = Field(validation_alias="runTime", serialization_alias="runTime")


class OverviewJobStatsTotalQueueTime(Value):
    p_50: float | None = Field(validation_alias="p50", serialization_alias="p50")
    p_95: float | None = Field(validation_alias="p95", serialization_alias="p95")


class OverviewJobStatsTotalRunTime(Value):
    p_50: float | None = Field(validation_alias="p50", serialization_alias="p50")
    p_95: float | None = Field(validation_alias="p95", serialization_alias="p95")


class OverviewQueue(Value):
    pending: int
    active: int
    groups: list["OverviewQueueGroups"]


class OverviewQueueGroups(Value):
    verdict: Verdict
    jobs: int
    oldest_submitted_at: datetime = Field(validation_alias="oldestSubmittedAt", serialization_alias="oldestSubmittedAt")
    rejections: list["OverviewQueueGroupsRejections"]


class OverviewQueueGroupsRejections(Value):
    code: CheckCode
    hosts: int


class OverviewHosts(Value):
    edges: list["OverviewHostsEdges"]
    page_info: "OverviewHostsPageInfo" = Field(validation_alias="pageInfo", serialization_alias="pageInfo")


class OverviewHostsEdges(Value):
    node: "OverviewHostsEdgesNode"


OverviewHostsEdgesNode = HostFields


class OverviewHostsPageInfo(Value):
    has_next_page: bool = Field(validation_alias="hasNextPage", serialization_alias="hasNextPage")
    end_cursor: str | None = Field(validation_alias="endCursor", serialization_alias="endCursor")


class OverviewRoutingEvents(Value):
    edges: list["OverviewRoutingEventsEdges"]


class OverviewRoutingEventsEdges(Value):
    node: "OverviewRoutingEventsEdgesNode"


class OverviewRoutingEventsEdgesNode(Value):
    cursor: str
    kind: RoutingEventKind
    at: datetime
    message: str
    host_name: str = Field(validation_alias="hostName", serialization_alias="hostName")


Overview.model_rebuild()
OverviewJobStats.model_rebuild()
OverviewJobStatsTotal.model_rebuild()
OverviewQueue.model_rebuild()
OverviewQueueGroups.model_rebuild()
OverviewHosts.model_rebuild()
OverviewHostsEdges.model_rebuild()
OverviewRoutingEvents.model_rebuild()
OverviewRoutingEventsEdges.model_rebuild()
