"""How attempts end, and how hosts fail them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from container_manager.domain.lifecycle import JobStatus


class FailureReason(StrEnum):
    """Why an attempt ended without success, unless it was cancelled."""

    EXIT_CODE = "exit_code"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    QUEUE_TIMEOUT = "queue_timeout"
    NOT_STARTED = "not_started"
    HOST_FAULT = "host_fault"
    VANISHED = "vanished"
    SERVICE_ERROR = "service_error"


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
    reason: FailureReason | None = None
    """Why it failed, where that does not follow from the rest."""

    @property
    def failure(self) -> str:
        """The FailureReason, or "" for an attempt that succeeded or was cancelled."""
        if self.status is JobStatus.TIMED_OUT:
            return str(FailureReason.TIMEOUT)
        if self.status is not JobStatus.FAILED:
            return ""
        if self.reason or self.exit_code:
            return str(self.reason or FailureReason.EXIT_CODE)
        return str(FailureReason.HOST_FAULT if self.started_at else FailureReason.NOT_STARTED)


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
