"""The tables."""

from container_manager.models.hosts import ExecutorHost, Installation, Leadership
from container_manager.models.jobs import ContainerJob, JobAttempt, JobOutput, OutboxEntry, QueueRefusal, class_key
from container_manager.models.records import (
    ApiToken,
    AuditEntry,
    FleetChange,
    HostUsage,
    JobStatistics,
    RoutingDecision,
    RoutingEvaluation,
    RoutingEvent,
    RoutingFleet,
)

__all__ = [
    "ApiToken",
    "AuditEntry",
    "ContainerJob",
    "ExecutorHost",
    "FleetChange",
    "HostUsage",
    "Installation",
    "JobAttempt",
    "JobOutput",
    "JobStatistics",
    "Leadership",
    "OutboxEntry",
    "QueueRefusal",
    "RoutingDecision",
    "RoutingEvaluation",
    "RoutingEvent",
    "RoutingFleet",
    "class_key",
]
