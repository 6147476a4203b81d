"""What happened to a job, and by whom."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import Enum

import strawberry

from container_manager.domain.lifecycle import TERMINAL, JobStatus
from container_manager.models import ContainerJob, JobAttempt


@strawberry.enum(description="What an attempt has reached.")
class TimelineStep(Enum):
    SUBMITTED = "submitted"
    QUEUED = strawberry.enum_value("queued", description="A further attempt waits for a host.")
    ROUTED = strawberry.enum_value("routed", description="It got a host.")
    LAUNCHED = strawberry.enum_value("launched", description="It has a container.")
    STARTED = strawberry.enum_value("started", description="The container runs.")
    CANCEL_REQUESTED = "cancel_requested"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


@strawberry.type(description="One step of an attempt.")
class TimelineEntry:
    step: TimelineStep
    at: datetime
    attempt: int
    host_name: str
    actor: str = strawberry.field(description='The name of the token that caused it; "" for the service itself.')
    message: str


def timeline(job: ContainerJob, attempts: Sequence[JobAttempt]) -> list[TimelineEntry]:
    """The steps of all attempts, the last of which the job row describes."""
    entries = [entry for attempt in attempts for entry in _steps(job, attempt)]
    if job.cancel_requested_at is not None:
        entries.append(_entry(TimelineStep.CANCEL_REQUESTED, job.cancel_requested_at, attempts[-1], job.cancelled_by))
    # Of the same moment, in the order of the steps.
    order = list(TimelineStep)
    return sorted(entries, key=lambda entry: (entry.at, entry.attempt, order.index(entry.step)))


def _steps(job: ContainerJob, attempt: JobAttempt) -> Iterator[TimelineEntry]:
    if attempt.attempt == 1:
        yield _entry(TimelineStep.SUBMITTED, job.submitted_at, attempt, job.submitted_by)
    elif attempt.queued_at is not None:
        yield _entry(TimelineStep.QUEUED, attempt.queued_at, attempt)
    times = {
        TimelineStep.ROUTED: attempt.routed_at,
        TimelineStep.LAUNCHED: attempt.launched_at,
        TimelineStep.STARTED: attempt.started_at,
    }
    for step, at in times.items():
        if at is not None:
            yield _entry(step, at, attempt)
    if JobStatus(attempt.status) in TERMINAL and attempt.finished_at is not None:
        message = attempt.error or ("" if attempt.exit_code is None else f"Exit code {attempt.exit_code}.")
        # An attempt may have ended otherwise before its container was stopped.
        actor = attempt.cancelled_by if attempt.status == JobStatus.CANCELLED else ""
        yield _entry(TimelineStep(attempt.status), attempt.finished_at, attempt, actor, message)


def _entry(step: TimelineStep, at: datetime, attempt: JobAttempt, actor: str = "", message: str = "") -> TimelineEntry:
    host = "" if step in {TimelineStep.SUBMITTED, TimelineStep.QUEUED} else attempt.host_name
    return TimelineEntry(step=step, at=at, attempt=attempt.attempt, host_name=host, actor=actor, message=message)
