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
    because the host did not answer, a quota is used up, or each other host is tried once.
    `end`: how an execution that had started ended. `exhausted`: the cause is a quota that is used up.
    `lacking`: the host lacks what this job needs, such as an image or a login, and may run others.
    `shown`: the host's health shows it until a launch succeeds.
    `ejects`: enough such faults in a row eject the host.
    """

    error: str
    retries: int | None
    end: End | None = None
    exhausted: bool = False
    lacking: bool = False
    ejects: bool = True
    shown: bool = True
