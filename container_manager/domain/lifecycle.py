"""The states of a job and the allowed transitions. Every conditional update takes its WHERE from this table."""

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job is in its life."""

    PENDING = "pending"
    ROUTED = "routed"
    LAUNCHING = "launching"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


ACTIVE = frozenset({JobStatus.ROUTED, JobStatus.LAUNCHING, JobStatus.RUNNING})
"""The job holds room on its host."""

CLAIMED = frozenset({JobStatus.LAUNCHING, JobStatus.RUNNING})
"""A worker holds the lease; there may be a container."""

TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.TIMED_OUT, JobStatus.CANCELLED})
"""Final for the attempt: only a retry opens the next one."""

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.ROUTED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.ROUTED: frozenset({JobStatus.LAUNCHING, JobStatus.CANCELLED}),
    # Back to PENDING: the host failed the job before it ran, and the job is routed again.
    JobStatus.LAUNCHING: frozenset({JobStatus.RUNNING, JobStatus.PENDING, *TERMINAL}),
    JobStatus.RUNNING: frozenset({JobStatus.PENDING, *TERMINAL}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.PENDING}),
    JobStatus.TIMED_OUT: frozenset({JobStatus.PENDING}),
    JobStatus.CANCELLED: frozenset({JobStatus.PENDING}),
}


def sources(target: JobStatus) -> frozenset[JobStatus]:
    """The states from which a job may enter `target`."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)
