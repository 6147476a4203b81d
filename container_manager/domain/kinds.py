"""The enumerations that the database and the API share."""

import re
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

EXECUTOR_GROUP = "container_manager.executors"
"""The entry points by which packages bring executors; a name is the type of the executor's hosts."""

_TYPE = re.compile(r"[a-z][a-z0-9_]{0,19}")

PACKAGED: dict[str, EntryPoint] = {
    point.name: point for point in entry_points(group=EXECUTOR_GROUP) if _TYPE.fullmatch(point.name)
}
"""The executors of installed packages, by type. A type has up to 20 small letters, digits and underscores."""

if TYPE_CHECKING:

    class ExecutorType(StrEnum):
        """The kinds of hosts."""

        DOCKER = "docker"
        CLOUDRUN = "cloudrun"
        SIMULATED = "simulated"
else:
    _BUILT_IN = {"DOCKER": "docker", "CLOUDRUN": "cloudrun", "SIMULATED": "simulated"}
    _MORE = {name.upper(): name for name in sorted(PACKAGED) if name not in _BUILT_IN.values()}
    ExecutorType = StrEnum("ExecutorType", {**_BUILT_IN, **_MORE}, module=__name__)
    ExecutorType.__doc__ = "The kinds of hosts."


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
