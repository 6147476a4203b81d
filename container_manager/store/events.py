"""The event log, read in commit order."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection
from django.db.models import Max, Q
from django.utils import timezone

from container_manager.models import Installation, RoutingEvent
from container_manager.store import threads
from container_manager.store.transaction import EVENT_CHANNEL, Fact, Transaction

AT_ONCE = 10_000
HEARD_WITHIN_SECONDS = 1.0
LISTENER = "container-manager events"
"""What PostgreSQL calls the connection that listens."""


_CONNINFO = {"host": "HOST", "port": "PORT", "dbname": "NAME", "user": "USER", "password": "PASSWORD"}
"""libpq's names of Django's settings."""


class CursorExpiredError(Exception):
    """What came after a cursor is not kept any more; `oldest` is the first cursor that can be gone on after."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"Events up to {oldest} are not kept any more.")
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


Told = Fact | Event
"""What was committed, as whoever committed it or whoever has read it knows it."""


_NEXT = f"SELECT {', '.join(Event._fields)} FROM container_manager_routingevent WHERE id > %s ORDER BY id LIMIT %s"  # noqa: S608


def following(cursor: int, limit: int) -> list[Event]:
    """Events beyond a cursor, oldest first; for the tail, which reads so often that building the query would show."""
    with connection.cursor() as sql:
        sql.execute(_NEXT, [cursor, limit])
        events = [Event(*row) for row in sql.fetchall()]
    if connection.vendor == "postgresql":
        return events
    return [event._replace(at=datetime.fromisoformat(str(event.at)).replace(tzinfo=UTC)) for event in events]


def page(cursor: int, limit: int, where: Q | None = None) -> list[Event]:
    """Those that a client may read beyond its cursor, oldest first.

    Raises:
        CursorExpiredError: some of what came after it is not kept any more.
    """
    events = oldest(limit, (where or Q()) & Q(pk__gt=cursor))
    # Read second: what was dropped in between shows here.
    if cursor < (through := dropped_through()):
        raise CursorExpiredError(through)
    return events


def oldest(limit: int, where: Q) -> list[Event]:
    """The first events that are kept."""
    rows = RoutingEvent.objects.filter(where).order_by("pk").values_list(*Event._fields)
    return [Event(*row) for row in rows[:limit]]


def dropped_through() -> int:
    """The cursor of the newest event that is not kept any more."""
    return Installation.objects.values_list("events_dropped_through", flat=True).first() or 0


def forget(tx: Transaction, items: Sequence[timedelta]) -> list[bool]:  # noqa: ARG001
    """Drop some of the events that are older than this; answers whether there may be more.

    The newest one stays, because its cursor is where the next one is expected.
    """
    before = timezone.now() - min(items)
    first = list(RoutingEvent.objects.order_by("pk").values_list("pk", "at")[: AT_ONCE + 1])
    old = [pk for pk, at in takewhile(lambda row: row[1] < before, first[:-1])]
    if old:
        RoutingEvent.objects.filter(pk__lte=old[-1]).delete()
        # Never back: another process may have dropped more since.
        Installation.objects.filter(events_dropped_through__lt=old[-1]).update(events_dropped_through=old[-1])
    return [len(old) == AT_ONCE] * len(items)


def newest() -> int:
    """The cursor of the newest event; 0 when there is none."""
    return RoutingEvent.objects.aggregate(id=Max("pk"))["id"] or 0


def by_ids(ids: Iterable[int]) -> dict[int, Event]:
    """Events by id; those that do not exist are left out."""
    rows = RoutingEvent.objects.filter(pk__in=list(ids)).values_list(*Event._fields)
    return {row[0]: Event(*row) for row in rows}


def address() -> str:
    """Where to listen when no other way is given: the database itself; "" where there is nothing to listen to."""
    if connection.vendor != "postgresql":
        return ""
    # Only with PostgreSQL, which is an extra.
    from psycopg.conninfo import make_conninfo  # noqa: PLC0415

    known = connection.settings_dict
    place: dict[str, Any] = {name: known[key] or None for name, key in _CONNINFO.items()}
    return make_conninfo(**place, **known["OPTIONS"])


async def live(url: str, cursor: int, limit: int, patience: float) -> AsyncGenerator[list[Event], None]:
    """Events beyond a cursor as they are committed, by whatever process, for as long as there is a connection.

    On the event loop and on a connection of its own: a notification is followed by one read, without a thread between
    them. Pages may be empty; the first comes at once, and one at least every `patience` seconds.

    Raises:
        psycopg.Error, TimeoutError: there is no connection, or none any more.
    """
    # Only with PostgreSQL, which is an extra.
    import psycopg  # noqa: PLC0415

    options: dict[str, Any] = {**settings.POSTGRESQL_OPTIONS, "application_name": LISTENER, "client_encoding": "UTF8"}
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, **options)
    async with connection:
        await connection.execute("SET TIME ZONE 'UTC'")
        await connection.execute(f"LISTEN {EVENT_CHANNEL}")
        await _hears(connection)
        while True:
            async with asyncio.timeout(patience):
                rows = await (await connection.execute(_NEXT, [cursor, limit])).fetchall()
            events = [Event(*row) for row in rows]
            cursor = events[-1].id if events else cursor
            yield events
            if len(events) < limit:
                async for _ in connection.notifies(timeout=patience, stop_after=1):
                    pass


async def _hears(connection: Any) -> None:
    """Make sure that notifications arrive: through a pool in transaction mode, none does."""
    # From another connection: one's own would be answered in any case.
    await threads.read(_notify)
    if not [heard async for heard in connection.notifies(timeout=HEARD_WITHIN_SECONDS, stop_after=1)]:
        raise TimeoutError("no notification arrives; CONTAINER_MANAGER_LISTEN_URL must be a direct connection")


def _notify() -> None:
    with connection.cursor() as sql:
        sql.execute("SELECT pg_notify(%s, '')", [EVENT_CHANNEL])
