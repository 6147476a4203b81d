"""Pages of jobs, decisions and events, each in one of several orders.

A condition that no index helps with is looked for in portions of the order, for a short time. A page may therefore end
before it is full; it says then how far was searched, and the next page goes on from there.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Model, Q, QuerySet

from container_manager import clock
from container_manager.models import ContainerJob
from container_manager.store.pending import PENDING

PORTION = 5000
"""Rows of which one query compares the condition."""

SEARCH_SECONDS = 0.03
MOST_COUNTED = 10_000
SUBMISSION_LAG = timedelta(hours=1)
"""The ids of jobs follow their submission, but for this time at most: requests and clocks are not that late."""

Key = Sequence[int]
"""The values of a row in the columns of an order; times in microseconds since 1970."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Order(NamedTuple):
    """Columns as `order_by` takes them, the last one unique; and the rows that have this order."""

    columns: tuple[str, ...]
    among: Q = Q()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.removeprefix("-") for column in self.columns)

    def reversed(self) -> "Order":
        return Order(tuple(c[1:] if c.startswith("-") else f"-{c}" for c in self.columns), self.among)

    def key(self, row: Model) -> Key:
        return _numbers(getattr(row, name) for name in self.names)

    def after(self, key: Key, *, inclusive: bool = False) -> Q:
        """The condition of all that follows `key`, or follows it or is at it."""
        (first, *rest), (number, *numbers) = self.columns, key
        name, before = first.removeprefix("-"), "lt" if first.startswith("-") else "gt"
        value = EPOCH + number * MICROSECOND if name.endswith("_at") else number
        if not rest:
            return Q(**{f"{name}__{before}{'e' if inclusive else ''}": value})
        later = Order(tuple(rest)).after(numbers, inclusive=inclusive)
        # The first condition follows from the second, but only it makes databases start in the middle of an index.
        return Q(**{f"{name}__{before}e": value}) & (Q(**{f"{name}__{before}": value}) | (Q(**{name: value}) & later))


def _numbers(values: Iterable[Any]) -> Key:
    return [(value - EPOCH) // MICROSECOND if isinstance(value, datetime) else value for value in values]


NEWEST_FIRST, OLDEST_FIRST = Order(("-pk",)), Order(("pk",))
LAST_ENDED_FIRST = Order(("-finished_at", "-pk"), Q(finished_at__isnull=False))
FIRST_ENDED_FIRST = LAST_ENDED_FIRST.reversed()
QUEUE_ORDER = Order(("-priority", "pk"), Q(PENDING))
"""The order in which jobs that wait are routed, as far as their requirements allow it."""


@dataclass(frozen=True, slots=True)
class Search:
    """Which rows of a table are wanted.

    `indexed`: the part of the condition that an index answers. `rest`: the other part, or the whole condition.
    """

    model: type[Model] = ContainerJob
    order: Order = NEWEST_FIRST
    indexed: Q = field(default_factory=Q)
    rest: Q = field(default_factory=Q)
    submitted: tuple[datetime | None, datetime | None] = (None, None)
    """Between which times jobs were submitted; this is a part of `rest` too, and tells where to look."""


class Page(NamedTuple):
    """Some of the rows in their order. `more`: there are others, or not all was searched; `end`: up to where it was."""

    rows: list[Any]
    more: bool
    end: Key | None


class Count(NamedTuple):
    """How many rows were found; `exact`: there are no others."""

    rows: int
    exact: bool


def page(search: Search, after: Key | None, limit: int, defer: Sequence[str] = ()) -> Page:
    """The first `limit` rows after a key, without the columns `defer`."""
    columns, position = search.order.columns, after
    found: list[Any] = []
    end: Key | None = None
    for portion, end in _portions(search, after):  # noqa: B007 - used after the loop
        rows = portion.filter(search.rest).defer(*defer).order_by(*columns)
        found += rows[: limit + 1 - len(found)]
        if len(found) > limit:
            return Page(found[:limit], True, search.order.key(found[limit - 1]) if limit else position)
    return Page(found, end is not None, end)


def ids(search: Search, most: int, defer: Sequence[str] = ()) -> tuple[list[int], bool]:
    """The ids of up to `most` rows, and whether there are others. The columns `defer` are not read."""
    found: list[int] = []
    after: Key | None = None
    while True:
        part = page(search, after, most - len(found), defer)
        found += [row.pk for row in part.rows]
        if not part.more or len(found) == most:
            return found, part.more
        after = part.end


def count(search: Search) -> Count:
    """How many rows there are, as far as a short search finds them."""
    found, end = 0, None
    for portion, end in _portions(search, None):  # noqa: B007 - used after the loop
        # In order: otherwise PostgreSQL would read the whole portion, also what does not meet `indexed`.
        rows = portion.filter(search.rest).order_by(*search.order.columns)
        found += rows[: MOST_COUNTED + 1 - found].count()
        if found > MOST_COUNTED:
            return Count(MOST_COUNTED, False)
    return Count(found, end is None)


def _portions(search: Search, after: Key | None) -> Iterator[tuple[QuerySet[Any], Key | None]]:
    """What is to be searched, each with its last key, or None if nothing comes after it."""
    order = search.order
    whole = search.model._default_manager.filter(  # noqa: SLF001 - Django's documented interface
        order.among, search.indexed, _ids(*search.submitted)
    )
    until = time.monotonic() + SEARCH_SECONDS
    while True:
        left = whole if after is None else whole.filter(order.after(after))
        if not search.rest:
            yield left, None
            return
        edge = left.order_by(*order.columns).values_list(*order.names)[PORTION - 1 : PORTION]
        after = next(map(_numbers, edge), None)
        yield left if after is None else left.filter(order.reversed().after(after, inclusive=True)), after
        if after is None or time.monotonic() > until:
            return


def _ids(since: datetime | None, until: datetime | None) -> Q:
    """A condition that all jobs meet which were submitted between these times."""
    where = Q()
    if since is not None and since > EPOCH:
        where &= Q(pk__gte=_id_before(since - SUBMISSION_LAG))
    if until is not None and until < clock.now():
        where &= Q(pk__lte=_id_before(until + SUBMISSION_LAG) + PORTION)
    return where


def _id_before(moment: datetime) -> int:
    """The id of a job that was submitted before this, with few until it; found by bisection."""
    jobs = ContainerJob.objects.order_by("pk").values_list("pk", "submitted_at")
    newest, _ = jobs.last() or (0, None)
    low, high = 0, newest
    while high - low > PORTION // 4:
        middle = (low + high) // 2
        pk, at = jobs.filter(pk__gt=middle).first() or (high, None)
        if at is None or at > moment:
            high = middle
        else:
            low = pk
    return low
