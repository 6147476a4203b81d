"""How attempts end, and how hosts fail them."""

from dataclasses import dataclass
from datetime import datetime

from container_manager.domain.lifecycle import JobStatus


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended. `output` is compressed; `final`: another attempt would end the same way."""

    status: JobStatus
    exit_code: int | None = None
    error: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    output: bytes = b""
    final: bool = False


@dataclass(frozen=True, slots=True)
class HostFault:
    """The host failed a job, either before it ran or by ending what ran.

    `retries`: how many such faults are followed by another attempt. None: the job is retried without limit,
    because the host did not answer or a quota is used up.
    `end`: how an execution that had started ended. `exhausted`: the cause is a quota that is used up.
    `misconfigured`: the cause is the host's settings or permissions.
    """

    error: str
    retries: int | None
    end: End | None = None
    exhausted: bool = False
    misconfigured: bool = False
