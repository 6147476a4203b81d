"""The event log, read in commit order."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from django.db.models import Max, Q

from container_manager.models import RoutingEvent


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
