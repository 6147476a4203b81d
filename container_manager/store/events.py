"""The event log, read in commit order."""

from collections.abc import AsyncGenerator, Iterable
from datetime import datetime
from typing import NamedTuple

from django.db.models import Max, Q

from container_manager.models import RoutingEvent
from container_manager.store.transaction import EVENT_CHANNEL, Fact


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


def after(cursor: int, limit: int, where: Q | None = None) -> list[Event]:
    """Events beyond a cursor, oldest first."""
    rows = RoutingEvent.objects.filter(where or Q(), pk__gt=cursor).order_by("pk")
    return [Event(*row) for row in rows.values_list(*Event._fields)[:limit]]


def newest() -> int:
    """The cursor of the newest event; 0 when there is none."""
    return RoutingEvent.objects.aggregate(id=Max("pk"))["id"] or 0


def by_ids(ids: Iterable[int]) -> dict[int, Event]:
    """Events by id; those that do not exist are left out."""
    rows = RoutingEvent.objects.filter(pk__in=list(ids)).values_list(*Event._fields)
    return {row[0]: Event(*row) for row in rows}


async def commits(url: str) -> AsyncGenerator[None, None]:
    """Once when it listens, and then after each commit of events, by whatever process, for as long as it is connected.

    Raises:
        psycopg.Error: there is no connection, or none any more.
    """
    # Only with PostgreSQL, which is an extra.
    import psycopg  # noqa: PLC0415

    connection = await psycopg.AsyncConnection.connect(
        url, autocommit=True, connect_timeout=5, keepalives_idle=10, keepalives_interval=5, keepalives_count=3
    )
    async with connection:
        await connection.execute(f"LISTEN {EVENT_CHANNEL}")
        yield
        async for _ in connection.notifies():
            yield
