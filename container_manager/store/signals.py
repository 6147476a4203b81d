"""How far signals about ended jobs were sent."""

from collections.abc import Sequence
from typing import NamedTuple

from container_manager.domain.lifecycle import TERMINAL
from container_manager.models import ContainerJob, Installation
from container_manager.store import events
from container_manager.store.events import Event
from container_manager.store.transaction import JOB_ENDS, Transaction

READ_AT_ONCE = 500


class Unsent(NamedTuple):
    """Jobs that have ended, each with its event, and the event up to which all were looked at."""

    ended: list[tuple[ContainerJob, Event]]
    through: int


def unsent() -> Unsent | None:
    """The next ended jobs; None when there is nothing new. The first time it begins with the newest event."""
    since = Installation.objects.values_list("signalled_through", flat=True).get()
    if since is None:
        return Unsent([], events.newest())
    page = events.following(since, READ_AT_ONCE)
    if not page:
        return None
    ends = [event for event in page if event.kind in JOB_ENDS]
    jobs = ContainerJob.objects.select_related("host").in_bulk([event.job_id for event in ends])
    # A job that runs again has not ended; its next end has an event of its own.
    ended = [
        (job, event)
        for event in ends
        if (job := jobs.get(event.job_id)) is not None and job.status in TERMINAL and job.attempt == event.attempt
    ]
    return Unsent(ended, page[-1].id)


def sent(tx: Transaction, items: Sequence[int]) -> list[None]:  # noqa: ARG001
    """Note that signals were sent up to an event."""
    # Never lowered: another process may have sent more meanwhile.
    through = max(items)
    Installation.objects.exclude(signalled_through__gte=through).update(signalled_through=through)
    return [None] * len(items)
