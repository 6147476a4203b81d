from datetime import datetime
from typing import Any, Optional

from pydantic import Field

from container_manager.client.values import Input

from .enums import (
    CheckCode,
    ExecutorType,
    FailureReason,
    HealthStatus,
    JobStatus,
    RoutingEventKind,
    Strategy,
)


class EnvironmentVariable(Input):
    """An environment variable of a job."""

    name: str
    "Its name."
    value: str
    "Its value, which may be secret."


class HostAssumption(Input):
    """A change to suppose while planning; nothing is written."""

    host_id: str = Field(validation_alias="hostId", serialization_alias="hostId")
    "The host that is supposed to change."
    is_active: bool | None = Field(validation_alias="isActive", serialization_alias="isActive", default=None)
    "False: jobs are never routed to it."
    is_draining: bool | None = Field(validation_alias="isDraining", serialization_alias="isDraining", default=None)
    "True: it takes no new jobs."
    routing_weight: int | None = Field(
        validation_alias="routingWeight", serialization_alias="routingWeight", default=None
    )
    "0 to 1000: its share of the jobs. 0: only when no host with a weight can take the job."
    max_concurrent_jobs: int | None = Field(
        validation_alias="maxConcurrentJobs", serialization_alias="maxConcurrentJobs", default=None
    )
    "The most jobs that it holds at the same time."
    max_memory_mb: int | None = Field(validation_alias="maxMemoryMb", serialization_alias="maxMemoryMb", default=None)
    "The most MiB that jobs hold on it; null: what the engine reports."
    max_cpu_cores: float | None = Field(validation_alias="maxCpuCores", serialization_alias="maxCpuCores", default=None)
    "The most cores that jobs hold on it; null: what the engine reports."


class HostFilter(Input):
    """Which hosts are wanted: those that meet all that is given."""

    name: str | None = None
    "Its name."
    executor_type: ExecutorType | None = Field(
        validation_alias="executorType", serialization_alias="executorType", default=None
    )
    "The kind of host."
    region: str | None = None
    'The region; "" when it has none.'
    is_active: bool | None = Field(validation_alias="isActive", serialization_alias="isActive", default=None)
    "False: jobs are never routed to it."
    is_draining: bool | None = Field(validation_alias="isDraining", serialization_alias="isDraining", default=None)
    "True: it takes no new jobs."
    and_: Optional["HostFilter"] = Field(validation_alias="AND", serialization_alias="AND", default=None)
    "Conditions that must be met as well."
    or_: Optional["HostFilter"] = Field(validation_alias="OR", serialization_alias="OR", default=None)
    "Conditions that may be met instead."
    not_: Optional["HostFilter"] = Field(validation_alias="NOT", serialization_alias="NOT", default=None)
    "Conditions that must not be met."
    name_contains: str | None = Field(validation_alias="nameContains", serialization_alias="nameContains", default=None)
    "A part of the name, in small or capital letters."
    min_free_slots: int | None = Field(
        validation_alias="minFreeSlots", serialization_alias="minFreeSlots", default=None
    )
    "Has at least so many free slots."
    min_free_memory_mb: int | None = Field(
        validation_alias="minFreeMemoryMb", serialization_alias="minFreeMemoryMb", default=None
    )
    "Has at least so much free memory; without a limit it always has."
    min_free_cpu_cores: float | None = Field(
        validation_alias="minFreeCpuCores", serialization_alias="minFreeCpuCores", default=None
    )
    "Has at least so many free cores; without a limit it always has."
    health: HealthStatus | None = None
    "Its health is this."
    labels: Any | None = None
    "An object: each label must have this value, or one of these if it is a list."


class HostInput(Input):
    """A host to create."""

    config: Any | None = None
    "Its settings by executor type; see docs/engines.md and docs/cloudrun.md."
    region: str | None = None
    "For regionPreference of jobs; on Cloud Run it comes from config.region."
    labels: Any | None = None
    "Names and values for people and filters, as an object."
    routing_weight: int | None = Field(
        validation_alias="routingWeight", serialization_alias="routingWeight", default=None
    )
    "0 to 1000: its share of the jobs. 0: only when no host with a weight can take the job."
    max_concurrent_jobs: int | None = Field(
        validation_alias="maxConcurrentJobs", serialization_alias="maxConcurrentJobs", default=None
    )
    "The most jobs that it holds at the same time."
    max_memory_mb: int | None = Field(validation_alias="maxMemoryMb", serialization_alias="maxMemoryMb", default=None)
    "The most MiB that jobs hold on it; null: what the engine reports."
    max_cpu_cores: float | None = Field(validation_alias="maxCpuCores", serialization_alias="maxCpuCores", default=None)
    "The most cores that jobs hold on it; null: what the engine reports."
    is_active: bool | None = Field(validation_alias="isActive", serialization_alias="isActive", default=None)
    "False: jobs are never routed to it."
    name: str
    "Unique; letters, digits and -._ are allowed."
    executor_type: ExecutorType = Field(validation_alias="executorType", serialization_alias="executorType")
    "The kind of host."


class HostPatch(Input):
    """What changes of a host; what is not given stays."""

    config: Any | None = None
    "A JSON merge patch (RFC 7396) of its settings: null removes a key."
    region: str | None = None
    'The region; "" when it has none.'
    labels: Any | None = None
    "All of its labels: they replace those that it has."
    routing_weight: int | None = Field(
        validation_alias="routingWeight", serialization_alias="routingWeight", default=None
    )
    "0 to 1000: its share of the jobs. 0: only when no host with a weight can take the job."
    max_concurrent_jobs: int | None = Field(
        validation_alias="maxConcurrentJobs", serialization_alias="maxConcurrentJobs", default=None
    )
    "The most jobs that it holds at the same time."
    max_memory_mb: int | None = Field(validation_alias="maxMemoryMb", serialization_alias="maxMemoryMb", default=None)
    "The most MiB that jobs hold on it; null: what the engine reports."
    max_cpu_cores: float | None = Field(validation_alias="maxCpuCores", serialization_alias="maxCpuCores", default=None)
    "The most cores that jobs hold on it; null: what the engine reports."
    is_active: bool | None = Field(validation_alias="isActive", serialization_alias="isActive", default=None)
    "False: jobs are never routed to it."
    name: str | None = None
    "Its name."


class JobFilter(Input):
    """Which jobs are wanted: those that meet all that is given."""

    name: str | None = None
    "Its name."
    executor_type: ExecutorType | None = Field(
        validation_alias="executorType", serialization_alias="executorType", default=None
    )
    "The kind of host of the latest attempt."
    submitted_by: str | None = Field(validation_alias="submittedBy", serialization_alias="submittedBy", default=None)
    "The name of the token that submitted it."
    and_: Optional["JobFilter"] = Field(validation_alias="AND", serialization_alias="AND", default=None)
    "Conditions that must be met as well."
    or_: Optional["JobFilter"] = Field(validation_alias="OR", serialization_alias="OR", default=None)
    "Conditions that may be met instead."
    not_: Optional["JobFilter"] = Field(validation_alias="NOT", serialization_alias="NOT", default=None)
    "Conditions that must not be met."
    name_contains: str | None = Field(validation_alias="nameContains", serialization_alias="nameContains", default=None)
    "A part of the name, in small or capital letters."
    image_contains: str | None = Field(
        validation_alias="imageContains", serialization_alias="imageContains", default=None
    )
    "A part of the image, in small or capital letters."
    status: list[JobStatus] | None = None
    "Its status is one of these."
    host_name: str | None = Field(validation_alias="hostName", serialization_alias="hostName", default=None)
    "The name of the host of the latest attempt."
    host_id: str | None = Field(validation_alias="hostId", serialization_alias="hostId", default=None)
    "The host of the latest attempt."
    labels: Any | None = None
    "An object: each label must have this value, or one of these if it is a list."
    submitted_after: datetime | None = Field(
        validation_alias="submittedAfter", serialization_alias="submittedAfter", default=None
    )
    "Later than this; a time without a zone is in UTC."
    submitted_before: datetime | None = Field(
        validation_alias="submittedBefore", serialization_alias="submittedBefore", default=None
    )
    "Earlier than this; a time without a zone is in UTC."
    finished_after: datetime | None = Field(
        validation_alias="finishedAfter", serialization_alias="finishedAfter", default=None
    )
    "Ended later than this; a time without a zone is in UTC."
    finished_before: datetime | None = Field(
        validation_alias="finishedBefore", serialization_alias="finishedBefore", default=None
    )
    "Ended earlier than this; a time without a zone is in UTC."
    min_duration_seconds: float | None = Field(
        validation_alias="minDurationSeconds", serialization_alias="minDurationSeconds", default=None
    )
    "Ran at least so long, from start to end."
    max_duration_seconds: float | None = Field(
        validation_alias="maxDurationSeconds", serialization_alias="maxDurationSeconds", default=None
    )
    "Ran at most so long, from start to end."
    exit_code: list[int] | None = Field(validation_alias="exitCode", serialization_alias="exitCode", default=None)
    "Its exit code is one of these."
    failure: list[FailureReason] | None = None
    "It failed for one of these reasons."
    error_contains: str | None = Field(
        validation_alias="errorContains", serialization_alias="errorContains", default=None
    )
    "A part of the error, in small or capital letters."
    min_attempt: int | None = Field(validation_alias="minAttempt", serialization_alias="minAttempt", default=None)
    "At its n-th attempt or a later one."
    waiting_on: list[CheckCode] | None = Field(
        validation_alias="waitingOn", serialization_alias="waitingOn", default=None
    )
    "Jobs that wait, and that some host fails to take by one of these."


class JobInput(Input):
    """A job to submit."""

    image: str
    "The image, such as busybox:1.36 or registry.example.org/team/model@sha256:…."
    name: str | None = None
    "A name for people; it need not be unique."
    command: list[str] | None = None
    "The arguments of its program."
    environment: list["EnvironmentVariable"] | None = None
    "Environment variables. The values are encrypted and never returned."
    entry_point: list[str] | None = Field(validation_alias="entryPoint", serialization_alias="entryPoint", default=None)
    "Its program; that of the image when it is not given."
    working_dir: str | None = Field(validation_alias="workingDir", serialization_alias="workingDir", default=None)
    "The directory in which its program starts."
    user: str | None = None
    "NAME, UID or UID:GID; only on hosts that allow it."
    network: str | None = None
    "Instead of the host's; only on hosts that allow it (config.allow.networks)."
    read_only_root: bool | None = Field(
        validation_alias="readOnlyRoot", serialization_alias="readOnlyRoot", default=None
    )
    "True: it cannot write into the file system of its image."
    shm_size_mb: int | None = Field(validation_alias="shmSizeMb", serialization_alias="shmSizeMb", default=None)
    "MiB of /dev/shm, which count as memory of the job; otherwise the engine's default."
    tmpfs: list["TmpfsInput"] | None = None
    "File systems in memory."
    memory_limit_mb: int | None = Field(
        validation_alias="memoryLimitMb", serialization_alias="memoryLimitMb", default=None
    )
    "MiB that it may use; they are reserved for it."
    cpu_limit: float | None = Field(validation_alias="cpuLimit", serialization_alias="cpuLimit", default=None)
    "Cores that it may use; they are reserved for it."
    timeout_seconds: int | None = Field(
        validation_alias="timeoutSeconds", serialization_alias="timeoutSeconds", default=None
    )
    "It is stopped when it has run for so long."
    priority: int | None = None
    "Higher ones are routed first; 0 when it is not given."
    preferred_executor: ExecutorType | None = Field(
        validation_alias="preferredExecutor", serialization_alias="preferredExecutor", default=None
    )
    "The kind of host to try first."
    executor_required: bool | None = Field(
        validation_alias="executorRequired", serialization_alias="executorRequired", default=None
    )
    "True: only hosts of preferredExecutor."
    region_preference: str | None = Field(
        validation_alias="regionPreference", serialization_alias="regionPreference", default=None
    )
    "The region to try first."
    region_required: bool | None = Field(
        validation_alias="regionRequired", serialization_alias="regionRequired", default=None
    )
    "True: only hosts of regionPreference."
    strategy: Strategy | None = None
    "How a host is chosen; WEIGHTED when it is not given."
    labels: Any | None = None
    "Names and values for people and filters, as an object."
    host_selector: Any | None = Field(validation_alias="hostSelector", serialization_alias="hostSelector", default=None)
    "Labels that a host must have, as an object."
    queue_timeout_seconds: int | None = Field(
        validation_alias="queueTimeoutSeconds", serialization_alias="queueTimeoutSeconds", default=None
    )
    "FAILED with a reason when it has not been routed by then. None: waits as long as it takes."
    max_attempts: int | None = Field(validation_alias="maxAttempts", serialization_alias="maxAttempts", default=None)
    "How often it is run when its program fails; 1 when it is not given."
    idempotency_key: str | None = Field(
        validation_alias="idempotencyKey", serialization_alias="idempotencyKey", default=None
    )
    "The same key with the same input gives the same job back; with another input, Conflict."


class RoutingDecisionFilter(Input):
    """Which decisions are wanted: those that meet all that is given."""

    job_id: str | None = Field(validation_alias="jobId", serialization_alias="jobId", default=None)
    "The job."
    host_id: str | None = Field(validation_alias="hostId", serialization_alias="hostId", default=None)
    "The host that was chosen."
    refused: bool | None = None
    "Whether no host could take the job."
    rejection: list[CheckCode] | None = None
    "Refusals in which some host failed one of these checks."
    decided_after: datetime | None = Field(
        validation_alias="decidedAfter", serialization_alias="decidedAfter", default=None
    )
    "Decided later than this."
    decided_before: datetime | None = Field(
        validation_alias="decidedBefore", serialization_alias="decidedBefore", default=None
    )
    "Decided earlier than this."


class RoutingEventFilter(Input):
    """Which events are wanted: those that meet all that is given."""

    kinds: list[RoutingEventKind] | None = None
    "Events of one of these kinds."
    job_id: str | None = Field(validation_alias="jobId", serialization_alias="jobId", default=None)
    "The job."
    host_id: str | None = Field(validation_alias="hostId", serialization_alias="hostId", default=None)
    "The host."
    executor_type: ExecutorType | None = Field(
        validation_alias="executorType", serialization_alias="executorType", default=None
    )
    "The kind of host."


class TmpfsInput(Input):
    """A file system in memory, which counts against the job's memory; nothing in it can be executed."""

    path: str
    "Where it is mounted."
    size_mb: int = Field(validation_alias="sizeMb", serialization_alias="sizeMb")
    "MiB that it can hold."


HostFilter.model_rebuild()
JobFilter.model_rebuild()
JobInput.model_rebuild()
