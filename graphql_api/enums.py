"""The enumerations of the API. Those that are stored are the enumerations of `container_manager.domain`."""

from enum import Enum

import strawberry

from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import EventKind, ExecutorType, Role
from container_manager.domain.lifecycle import JobStatus
from container_manager.domain.outcome import FailureReason
from container_manager.store.hosts import HostOrder

strawberry.enum(ExecutorType)
strawberry.enum(HealthStatus)
strawberry.enum(EventKind, name="RoutingEventKind")
strawberry.enum(JobStatus)
strawberry.enum(Role)
strawberry.enum(
    HostOrder,
    description="CREATED: the oldest first. NAME: by name. WEIGHT, FREE_SLOTS: the largest first. LATENCY: the "
    "smallest of the last probe first.",
)
strawberry.enum(
    FailureReason,
    description="Why an attempt failed. EXIT_CODE: its program ended with another code than 0. OUT_OF_MEMORY: it used "
    "more than its limit. TIMEOUT: it ran too long. QUEUE_TIMEOUT: it was not routed in time. NOT_STARTED: it could "
    "not be started. HOST_FAULT: its host ended it. VANISHED: its container is gone. SERVICE_ERROR: an error of this "
    "service, which is in its log.",
)


@strawberry.enum
class Strategy(Enum):
    WEIGHTED = "weighted"
    BALANCED = "balanced"
    PACKED = "packed"


@strawberry.enum(
    description="NEVER: were every host active, healthy and empty, none could take it: the job or the fleet must "
    "change. NOT_NOW: one could, once it is free, up or back in service; an empty fleet too."
)
class Verdict(Enum):
    FEASIBLE = "FEASIBLE"
    NOT_NOW = "NOT_NOW"
    NEVER = "NEVER"


@strawberry.enum
class CheckCode(Enum):
    INACTIVE = "INACTIVE"
    DRAINING = "DRAINING"
    UNHEALTHY = "UNHEALTHY"
    HEALTH_UNKNOWN = "HEALTH_UNKNOWN"
    EJECTED = "EJECTED"
    COOLDOWN = strawberry.enum_value("COOLDOWN", description="A quota of the host was used up a while ago.")
    EXECUTOR_TYPE = "EXECUTOR_TYPE"
    EXECUTOR_LIMITS = strawberry.enum_value(
        "EXECUTOR_LIMITS",
        description="What the job asks for that not every host takes: a user, a network; on Cloud Run the image's "
        "registry, the size, the timeout, the environment.",
    )
    HOST_LACKS = strawberry.enum_value(
        "HOST_LACKS",
        description="An earlier attempt of the job showed that this host lacks something it needs: a registry's login, "
        "the image for its platform, a network, a folder.",
    )
    REGION = "REGION"
    SELECTOR = "SELECTOR"
    SLOTS = "SLOTS"
    MEMORY = "MEMORY"
    CPU = "CPU"
    RESERVED = "RESERVED"
    OTHER = strawberry.enum_value("OTHER", description="A check that this installation has registered itself.")

    @classmethod
    def _missing_(cls, value: object) -> "CheckCode":  # noqa: ARG003 - any unknown code
        return cls.OTHER


@strawberry.enum(
    description="OTHER_VERSION: recorded by an algorithm that this version no longer has. EXPIRED: the checks of all "
    "hosts are no longer kept; the reason is."
)
class Replay(Enum):
    SAME = "SAME"
    DIFFERENT = "DIFFERENT"
    OTHER_VERSION = "OTHER_VERSION"
    EXPIRED = "EXPIRED"


@strawberry.enum
class LogStream(Enum):
    STDOUT = "stdout"
    STDERR = "stderr"
