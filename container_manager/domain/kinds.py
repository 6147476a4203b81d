"""The enumerations that the database and the API share."""

from enum import StrEnum


class ExecutorType(StrEnum):
    """The kinds of hosts."""

    DOCKER = "docker"
    CLOUDRUN = "cloudrun"
    SIMULATED = "simulated"


class Role(StrEnum):
    """What a token allows; each role includes the ones before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class EventKind(StrEnum):
    """The kinds of events."""

    JOB_SUBMITTED = "job_submitted"
    JOB_ROUTED = "job_routed"
    JOB_REFUSED = "job_refused"
    JOB_PROGRESS = "job_progress"
    JOB_LAUNCHED = "job_launched"
    JOB_STARTED = "job_started"
    JOB_FINISHED = "job_finished"
    JOB_RETRIED = "job_retried"
    JOB_CANCEL_REQUESTED = "job_cancel_requested"
    JOB_CANCELLED = "job_cancelled"
    HOST_CREATED = "host_created"
    HOST_UPDATED = "host_updated"
    HOST_HEALTH_CHANGED = "host_health_changed"
    HOST_EJECTED = "host_ejected"
    HOST_COOLDOWN = "host_cooldown"
    HOST_RESERVED = "host_reserved"
    HOST_RELEASED = "host_released"
    HOST_DRAINED = "host_drained"
    HOST_EMPTY = "host_empty"
    HOST_RESUMED = "host_resumed"
    HOST_LOST = "host_lost"
    HOST_SWEPT = "host_swept"
    HOST_DELETED = "host_deleted"
