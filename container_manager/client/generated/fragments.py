from datetime import datetime
from typing import Any, Optional

from pydantic import Field

from container_manager.client.values import Value

from .enums import (
    CheckCode,
    ExecutorType,
    FailureReason,
    HealthStatus,
    JobStatus,
    Replay,
    RoutingEventKind,
    Strategy,
    Verdict,
)


class CheckFields(Value):
    code: CheckCode
    passed: bool
    verdict: Verdict
    needed: str
    available: str
    message: str


class DecisionFields(Value):
    id: str
    attempt: int
    executor_type: ExecutorType | None = Field(validation_alias="executorType", serialization_alias="executorType")
    strategy: Strategy
    reason: str
    decided_at: datetime = Field(validation_alias="decidedAt", serialization_alias="decidedAt")
    replay: Replay
    rejections: list["DecisionFieldsRejections"]
    host: Optional["DecisionFieldsHost"]


class DecisionFieldsRejections(Value):
    code: CheckCode
    hosts: int


class DecisionFieldsHost(Value):
    id: str
    name: str


class EventFields(Value):
    cursor: str
    kind: RoutingEventKind
    at: datetime
    message: str
    attempt: int | None
    actor: str
    host_name: str = Field(validation_alias="hostName", serialization_alias="hostName")
    job: Optional["EventFieldsJob"]
    host: Optional["EventFieldsHost"]


class EventFieldsJob(Value):
    id: str
    name: str
    image: str
    status: JobStatus


class EventFieldsHost(Value):
    id: str
    name: str


class HostChecks(Value):
    host_name: str = Field(validation_alias="hostName", serialization_alias="hostName")
    verdict: Verdict
    weight: float
    chosen: bool
    checks: list["HostChecksChecks"]


class HostChecksChecks(CheckFields):
    pass


class HostFields(Value):
    id: str
    name: str
    executor_type: ExecutorType = Field(validation_alias="executorType", serialization_alias="executorType")
    region: str
    routing_weight: int = Field(validation_alias="routingWeight", serialization_alias="routingWeight")
    is_active: bool = Field(validation_alias="isActive", serialization_alias="isActive")
    is_draining: bool = Field(validation_alias="isDraining", serialization_alias="isDraining")
    empty_since: datetime | None = Field(validation_alias="emptySince", serialization_alias="emptySince")
    ejected_until: datetime | None = Field(validation_alias="ejectedUntil", serialization_alias="ejectedUntil")
    cooldown_until: datetime | None = Field(validation_alias="cooldownUntil", serialization_alias="cooldownUntil")
    engine: str | None
    created_at: datetime = Field(validation_alias="createdAt", serialization_alias="createdAt")
    labels: Any
    config: Any
    health: "HostFieldsHealth"
    capacity: "HostFieldsCapacity"


class HostFieldsHealth(Value):
    status: HealthStatus
    latency_ms: float | None = Field(validation_alias="latencyMs", serialization_alias="latencyMs")
    error: str | None
    last_checked_at: datetime | None = Field(validation_alias="lastCheckedAt", serialization_alias="lastCheckedAt")
    consecutive_failures: int = Field(validation_alias="consecutiveFailures", serialization_alias="consecutiveFailures")


class HostFieldsCapacity(Value):
    max_concurrent_jobs: int = Field(validation_alias="maxConcurrentJobs", serialization_alias="maxConcurrentJobs")
    running_jobs: int = Field(validation_alias="runningJobs", serialization_alias="runningJobs")
    available_slots: int = Field(validation_alias="availableSlots", serialization_alias="availableSlots")
    max_memory_mb: int | None = Field(validation_alias="maxMemoryMb", serialization_alias="maxMemoryMb")
    reserved_memory_mb: int = Field(validation_alias="reservedMemoryMb", serialization_alias="reservedMemoryMb")
    max_cpu_cores: float | None = Field(validation_alias="maxCpuCores", serialization_alias="maxCpuCores")
    reserved_cpu_cores: float = Field(validation_alias="reservedCpuCores", serialization_alias="reservedCpuCores")


class Refusal(Value):
    message: str
    verdict: Verdict
    rejections: list["RefusalRejections"]
    suggestions: list["RefusalSuggestions"]


class RefusalRejections(Value):
    code: CheckCode
    hosts: int


class RefusalSuggestions(Value):
    message: str
    hosts: int


class JobFields(Value):
    id: str
    name: str
    image: str
    status: JobStatus
    labels: Any
    attempt: int
    max_attempts: int = Field(validation_alias="maxAttempts", serialization_alias="maxAttempts")
    priority: int
    exit_code: int | None = Field(validation_alias="exitCode", serialization_alias="exitCode")
    failure: FailureReason | None
    error: str
    message: str
    routing_reason: str = Field(validation_alias="routingReason", serialization_alias="routingReason")
    execution_id: str = Field(validation_alias="executionId", serialization_alias="executionId")
    executor_type: ExecutorType | None = Field(validation_alias="executorType", serialization_alias="executorType")
    submitted_by: str = Field(validation_alias="submittedBy", serialization_alias="submittedBy")
    cancelled_by: str = Field(validation_alias="cancelledBy", serialization_alias="cancelledBy")
    submitted_at: datetime = Field(validation_alias="submittedAt", serialization_alias="submittedAt")
    queued_at: datetime | None = Field(validation_alias="queuedAt", serialization_alias="queuedAt")
    routed_at: datetime | None = Field(validation_alias="routedAt", serialization_alias="routedAt")
    launched_at: datetime | None = Field(validation_alias="launchedAt", serialization_alias="launchedAt")
    started_at: datetime | None = Field(validation_alias="startedAt", serialization_alias="startedAt")
    finished_at: datetime | None = Field(validation_alias="finishedAt", serialization_alias="finishedAt")
    queued_seconds: float | None = Field(validation_alias="queuedSeconds", serialization_alias="queuedSeconds")
    run_seconds: float | None = Field(validation_alias="runSeconds", serialization_alias="runSeconds")
    host: Optional["JobFieldsHost"]
    waiting_on: Optional["JobFieldsWaitingOn"] = Field(validation_alias="waitingOn", serialization_alias="waitingOn")


class JobFieldsHost(Value):
    id: str
    name: str


class JobFieldsWaitingOn(Refusal):
    pass


class JobDetails(JobFields):
    command: list[str]
    entry_point: list[str] = Field(validation_alias="entryPoint", serialization_alias="entryPoint")
    environment_names: list[str] = Field(validation_alias="environmentNames", serialization_alias="environmentNames")
    working_dir: str = Field(validation_alias="workingDir", serialization_alias="workingDir")
    user: str
    network: str
    read_only_root: bool = Field(validation_alias="readOnlyRoot", serialization_alias="readOnlyRoot")
    shm_size_mb: int | None = Field(validation_alias="shmSizeMb", serialization_alias="shmSizeMb")
    tmpfs: Any
    memory_limit_mb: int | None = Field(validation_alias="memoryLimitMb", serialization_alias="memoryLimitMb")
    cpu_limit: float | None = Field(validation_alias="cpuLimit", serialization_alias="cpuLimit")
    timeout_seconds: int = Field(validation_alias="timeoutSeconds", serialization_alias="timeoutSeconds")
    preferred_executor: ExecutorType | None = Field(
        validation_alias="preferredExecutor", serialization_alias="preferredExecutor"
    )
    executor_required: bool = Field(validation_alias="executorRequired", serialization_alias="executorRequired")
    region_preference: str = Field(validation_alias="regionPreference", serialization_alias="regionPreference")
    region_required: bool = Field(validation_alias="regionRequired", serialization_alias="regionRequired")
    host_selector: Any = Field(validation_alias="hostSelector", serialization_alias="hostSelector")
    strategy: Strategy
    queue_timeout_seconds: int | None = Field(
        validation_alias="queueTimeoutSeconds", serialization_alias="queueTimeoutSeconds"
    )
    not_before: datetime | None = Field(validation_alias="notBefore", serialization_alias="notBefore")
    cancel_requested_at: datetime | None = Field(
        validation_alias="cancelRequestedAt", serialization_alias="cancelRequestedAt"
    )
    reserved_host: Optional["JobDetailsReservedHost"] = Field(
        validation_alias="reservedHost", serialization_alias="reservedHost"
    )
    attempts: list["JobDetailsAttempts"]


class JobDetailsReservedHost(Value):
    id: str
    name: str


class JobDetailsAttempts(Value):
    attempt: int
    status: JobStatus
    host_name: str = Field(validation_alias="hostName", serialization_alias="hostName")
    execution_id: str = Field(validation_alias="executionId", serialization_alias="executionId")
    exit_code: int | None = Field(validation_alias="exitCode", serialization_alias="exitCode")
    error: str
    failure: FailureReason | None
    queued_at: datetime | None = Field(validation_alias="queuedAt", serialization_alias="queuedAt")
    routed_at: datetime | None = Field(validation_alias="routedAt", serialization_alias="routedAt")
    launched_at: datetime | None = Field(validation_alias="launchedAt", serialization_alias="launchedAt")
    started_at: datetime | None = Field(validation_alias="startedAt", serialization_alias="startedAt")
    finished_at: datetime | None = Field(validation_alias="finishedAt", serialization_alias="finishedAt")


CheckFields.model_rebuild()
DecisionFields.model_rebuild()
EventFields.model_rebuild()
HostChecks.model_rebuild()
HostFields.model_rebuild()
Refusal.model_rebuild()
JobFields.model_rebuild()
JobDetails.model_rebuild()
