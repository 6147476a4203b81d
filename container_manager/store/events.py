"""The event log, read in commit order."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import NamedTuple

from django.db.models import Max

from container_manager import clock
from container_manager.database import connection
from container_manager.models import Installation, RoutingEvent
from container_manager.store import paging
from container_manager.store.transaction import NewEvent, Transaction

DELETED_AT_ONCE = 10_000
"""Events that one transaction deletes."""


class CursorExpiredError(Exception):
    """Events after the cursor have been deleted; `oldest` is the first cursor from which all events are still there."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"Events up to {oldest} have been deleted.")
        self.oldest = oldest


class Event(NamedTuple):
    """One committed fact; `id` is its cursor."""

    id: int
    kind: str
    at: datetime
    message: str
    job_id: int | None
    host_id: int | None
    host_name: str
    executor_type: str
    decision_id: int | None
    attempt: int | None = None
    actor: str = ""

    @classmethod
    def of(cls, row: RoutingEvent) -> "Event":
        return cls(*(getattr(row, name) for name in cls._fields))


AnyEvent = NewEvent | Event
"""A committed event, as known to the process that wrote it or to one that has read it."""

NEXT_EVENTS = (
    f"SELECT {', '.join(Event._fields)} FROM container_manager_routingevent WHERE id > %s ORDER BY id LIMIT %s"  # noqa: S608
)


def following(cursor: int, limit: int) -> list[Event]:
    """Events after a cursor, oldest first. Plain SQL: the tail reads so often that the ORM's cost would show."""
    with connection.cursor() as sql:
        sql.execute(NEXT_EVENTS, [cursor, limit])
        events = [Event(*row) for row in sql.fetchall()]
    if connection.vendor == "postgresql":
        return events
    return [event._replace(at=datetime.fromisoformat(str(event.at)).replace(tzinfo=UTC)) for event in events]


def page(cursor: int, limit: int) -> list[Event]:
    """Events after a subscriber's cursor, oldest first.

    Raises:
        CursorExpiredError: events after the cursor have been deleted.
    """
    events = following(cursor, limit)
    _check_kept(cursor)
    return events


def searched(search: paging.Search, position: paging.Key | None, limit: int, after: int | None) -> paging.Page:
    """A page of events for a client that has those up to `after`.

    Raises:
        CursorExpiredError: events after that have been deleted.
    """
    found = paging.page(search, position, limit)
    if after is not None:
        _check_kept(after)
    return found


def _check_kept(cursor: int) -> None:
    # Called after the events were read, so that those deleted meanwhile are noticed.
    if cursor < (through := deleted_through()):
        raise CursorExpiredError(through)


def deleted_through() -> int:
    """The cursor of the newest event that has been deleted; 0 when none was."""
    return Installation.objects.values_list("events_dropped_through", flat=True).first() or 0


def delete_old(tx: Transaction, items: Sequence[timedelta]) -> list[bool]:  # noqa: ARG001
    """Delete some of the events that are older than this; answers whether there may be more.

    The newest event stays, because its cursor is where subscribers expect the next one.
    """
    before = clock.now() - min(items)
    first = list(RoutingEvent.objects.order_by("pk").values_list("pk", "at")[: DELETED_AT_ONCE + 1])
    old = [pk for pk, at in takewhile(lambda row: row[1] < before, first[:-1])]
    if old:
        RoutingEvent.objects.filter(pk__lte=old[-1]).delete()
        # Never lowered: another process may have deleted more meanwhile.
        Installation.objects.filter(events_dropped_through__lt=old[-1]).update(events_dropped_through=old[-1])
    return [len(old) == DELETED_AT_ONCE] * len(items)


def newest() -> int:
    """The cursor of the newest event; 0 when there is none."""
    return RoutingEvent.objects.aggregate(id=Max("pk"))["id"] or 0


def by_ids(ids: Iterable[int]) -> dict[int, Event]:
    """Events by id; those that do not exist are left out."""
    rows = RoutingEvent.objects.filter(pk__in=list(ids)).values_list(*Event._fields)
    return {row[0]: Event(*row) for row in rows}
