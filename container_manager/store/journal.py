"""Says in the log what was committed, so that it shows the whole life of a job and what happens to hosts."""

import logging
from collections import Counter
from collections.abc import Sequence

from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import JobStatus
from container_manager.store.transaction import JOB_ENDS, NewEvent

logger = logging.getLogger(__name__)

MOST_TOLD = 20
"""Of a commit with more events, only those that a person should look at are told one by one."""

NOT_TOLD = frozenset({EventKind.JOB_ROUTED, EventKind.JOB_REFUSED, EventKind.JOB_PROGRESS, EventKind.HOST_RESERVED})
"""Decisions are told where they are made; the others repeat themselves."""

SERIOUS = frozenset({EventKind.HOST_EJECTED, EventKind.HOST_COOLDOWN, EventKind.HOST_LOST})
TO_HEALTHY = f"to {HealthStatus.HEALTHY}."
"""In the message of a host that is healthy again."""


def tell(events: Sequence[NewEvent]) -> None:
    """Log committed events."""
    told = [event for event in events if event.kind not in NOT_TOLD]
    few = len(told) <= MOST_TOLD
    for event in told:
        level = logging.WARNING if _is_serious(event) else logging.INFO
        if (few or level == logging.WARNING or _has_failed(event)) and logger.isEnabledFor(level):
            fields = {"job": event.job_id, "attempt": event.attempt, "host": event.host_name, "actor": event.actor}
            given = {name: value for name, value in fields.items() if value}
            logger.log(level, "%s: %s", event.kind, event.message, extra=given)
    if not few:
        counts = Counter(str(event.kind) for event in told)
        logger.info("%s", ", ".join(f"{count} {kind}" for kind, count in counts.most_common()))


def _is_serious(event: NewEvent) -> bool:
    is_ill = event.kind == EventKind.HOST_HEALTH_CHANGED and TO_HEALTHY not in event.message
    return is_ill or event.kind in SERIOUS


def _has_failed(event: NewEvent) -> bool:
    return event.kind in JOB_ENDS and not event.message.startswith(JobStatus.SUCCEEDED.upper())
