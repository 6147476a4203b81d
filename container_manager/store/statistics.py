"""Statistics of jobs, made from the event log: counts and durations by minute and by hour.

Each event is counted once: what was counted and up to which event are committed together.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Self

from django.db.models import Count, F, Max, Q, QuerySet, Sum
from django.db.models.functions import TruncMinute

from container_manager import clock
from container_manager.domain import histogram, lifecycle
from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import JobStatus
from container_manager.models import ContainerJob, ExecutorHost, Installation, JobAttempt, JobStatistics, RoutingEvent
from container_manager.store import bulk
from container_manager.store.events import Event
from container_manager.store.transaction import JOB_ENDS, Transaction

COUNTED_AT_ONCE = 5000
MINUTE, HOUR = 60, 3600
KEPT = {MINUTE: timedelta(days=2), HOUR: timedelta(days=400)}
DELETED_AT_ONCE = 5000
LONGEST_KEY = 300

MOST_KEYS, OTHERS = 100, "(others)"
"""Of images and of the values of each label, this many different ones have statistics of their own in an hour."""

MINUTES_UP_TO = timedelta(hours=12)
"""A range up to this long is answered from minutes, a longer one from hours."""


class Dimension(StrEnum):
    """What statistics are grouped by."""

    ALL = "all"
    HOST = "host"
    EXECUTOR_TYPE = "executor_type"
    REGION = "region"
    IMAGE = "image"
    LABEL = "label"


COUNTS = ("submitted", "refused", "started", "succeeded", "failed", "timed_out", "cancelled")
DISTRIBUTIONS = ("failures", "queued", "launched", "ran")
"""Counts by FailureReason, and by classes of durations."""

KINDS: dict[str, str] = {
    EventKind.JOB_SUBMITTED: "submitted",
    EventKind.JOB_REFUSED: "refused",
    EventKind.JOB_STARTED: "started",
}

Tally = Counter[tuple[str, str]]
"""How often something was counted: the name of a count and "", or of a distribution and the class in it."""


class Bucket(NamedTuple):
    """What one row is about. `label`: the name of the label whose value is `key`, of LABEL."""

    seconds: int
    start: datetime
    dimension: str
    label: str
    key: str


@dataclass(slots=True)
class Figures:
    """What is counted."""

    counts: Counter[str] = field(default_factory=Counter)
    distributions: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, other: "Figures") -> None:
        self.counts.update(other.counts)
        for name, counts in other.distributions.items():
            self.distributions[name].update(counts)

    @classmethod
    def of(cls, tally: Tally) -> Self:
        found = cls()
        for (name, number), count in tally.items():
            if name in DISTRIBUTIONS:
                found.distributions[name][number] += count
            else:
                found.counts[name] += count
        return found


class Collected(NamedTuple):
    """What the events after `since` and up to `until` add. `more`: there may be others."""

    since: int
    until: int
    figures: Mapping[Bucket, Figures]
    more: bool


# ------------------------------------------------------------------ counting


def collect() -> Collected | None:
    """What the next events add; None when there is no new one."""
    since = Installation.objects.values_list("counted_through", flat=True).get()
    new = RoutingEvent.objects.filter(pk__gt=since)
    edge = next(iter(new.order_by("pk").values_list("pk", flat=True)[COUNTED_AT_ONCE - 1 : COUNTED_AT_ONCE]), None)
    until = edge or new.aggregate(id=Max("pk"))["id"]
    if until is None:
        return None
    these = new.filter(pk__lte=until)
    rows = these.filter(kind__in=[*map(str, JOB_ENDS), str(EventKind.JOB_RETRIED)]).order_by("pk")
    found_events = [Event(*row) for row in rows.values_list(*Event._fields)]
    ends = [event for event in found_events if event.kind != EventKind.JOB_RETRIED]
    ends += _ended_by_hosts([event for event in found_events if event.kind == EventKind.JOB_RETRIED])
    attempts, regions = _attempts(ends), dict(ExecutorHost.objects.values_list("pk", "region")) if ends else {}
    by_minute: defaultdict[tuple[datetime, str, str, str], Tally] = defaultdict(Tally)
    # Counted by the database, because there are many of them.
    others = these.filter(kind__in=[str(kind) for kind in KINDS]).annotate(start=TruncMinute("at"))
    for start, kind, count in others.values_list("start", "kind").annotate(events=Count("pk")).order_by():
        by_minute[start, str(Dimension.ALL), "", ""][KINDS[kind], ""] += count
    for event in ends:
        if (found := attempts.get((event.job_id, event.attempt))) is not None:
            what, start = _end(found), _minute(event.at)
            for dimension, label, key in _dimensions(event, found, regions):
                tally = by_minute[start, dimension, label, key[:LONGEST_KEY]]
                for one in what:
                    tally[one] += 1
    figures: defaultdict[Bucket, Figures] = defaultdict(Figures)
    for (start, dimension, label, key), tally in by_minute.items():
        made = Figures.of(tally)
        figures[Bucket(MINUTE, start, dimension, label, key)].add(made)
        figures[Bucket(HOUR, start.replace(minute=0), dimension, label, key)].add(made)
    return Collected(since, until, figures, edge is not None)


def _ended_by_hosts(retried: Sequence[Event]) -> list[Event]:
    """Those of the retries that follow an attempt without an end of its own, because its host has failed it."""
    retried = [event for event in retried if not event.actor]
    ids = {event.job_id for event in retried if event.job_id is not None}
    ends = RoutingEvent.objects.filter(job_id__in=ids, kind__in=[str(kind) for kind in JOB_ENDS])
    ended = set(ends.values_list("job_id", "attempt"))
    return [event for event in retried if (event.job_id, event.attempt) not in ended]


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


_OF_JOBS = ("pk", "image", "labels", "submitted_at")
_OF_ATTEMPTS = (
    "attempt", "status", "failure", "queued_at", "routed_at", "started_at", "finished_at",
)  # fmt: skip


class _Attempt(NamedTuple):
    """An attempt that has ended, with what is counted of its job."""

    job_id: int
    image: str
    labels: Mapping[str, str]
    submitted_at: datetime
    attempt: int
    status: str
    failure: str
    queued_at: datetime | None
    routed_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


def _attempts(ends: Sequence[Event]) -> dict[tuple[int | None, int | None], _Attempt]:
    """The attempts that have ended, by job and number."""
    ids = [event.job_id for event in ends if event.job_id is not None]
    rows = ContainerJob.objects.filter(bulk.id_in("id", ids)).values_list(*_OF_JOBS, *_OF_ATTEMPTS)
    jobs = {row[0]: _Attempt(*row) for row in rows}
    found: dict[tuple[int | None, int | None], _Attempt] = {(job.job_id, job.attempt): job for job in jobs.values()}
    # Processes of an earlier version do not name the attempt.
    found |= {(job.job_id, None): job for job in jobs.values() if job.status in lifecycle.TERMINAL}
    earlier = {event.job_id for event in ends if (event.job_id, event.attempt) not in found}
    past = JobAttempt.objects.filter(job_id__in=[pk for pk in jobs if pk in earlier])
    for job_id, *row in past.values_list("job_id", *_OF_ATTEMPTS):
        found[job_id, row[0]] = jobs[job_id]._replace(**dict(zip(_OF_ATTEMPTS, row, strict=True)))
    return found


def _end(attempt: _Attempt) -> list[tuple[str, str]]:
    """What the end of an attempt counts as."""
    found = [(attempt.status, "")]
    if attempt.failure and attempt.status in {JobStatus.FAILED, JobStatus.TIMED_OUT}:
        found.append(("failures", attempt.failure))
    first = attempt.submitted_at if attempt.attempt == 1 else None
    for name, since, until in (
        ("queued", attempt.queued_at or first, attempt.routed_at),
        ("launched", attempt.routed_at, attempt.started_at),
        ("ran", attempt.started_at, attempt.finished_at),
    ):
        if since is not None and until is not None:
            found.append((name, histogram.class_of((until - since).total_seconds())))
    return found


def _dimensions(event: Event, attempt: _Attempt, regions: Mapping[int, str]) -> list[tuple[str, str, str]]:
    """Dimension, label and key of each row in which the end of the attempt is counted."""
    found = [(Dimension.ALL, "", ""), (Dimension.IMAGE, "", attempt.image)]
    found += [(Dimension.LABEL, name, value) for name, value in attempt.labels.items()]
    if event.host_id is not None:
        found += [(Dimension.HOST, "", event.host_name), (Dimension.EXECUTOR_TYPE, "", event.executor_type)]
        found += [(Dimension.REGION, "", regions[event.host_id])] if event.host_id in regions else []
    return [(str(dimension), label, key) for dimension, label, key in found]


def store(tx: Transaction, items: Sequence[Collected]) -> list[bool]:  # noqa: ARG001
    """Add what was collected, unless another process has done so meanwhile; answers whether it was added."""
    return [_store(item) for item in items]


def _store(item: Collected) -> bool:
    known = Installation.objects.filter(counted_through=item.since).update(counted_through=item.until)
    if not known:
        return False
    figures = _within_limits(item.figures)
    known_rows = JobStatistics.objects.filter(
        # The first two lead the index.
        seconds__in=KEPT,
        dimension__in=[str(dimension) for dimension in Dimension],
        start__in={bucket.start for bucket in figures},
        key__in={bucket.key for bucket in figures},
    )
    rows = {Bucket(row.seconds, row.start, row.dimension, row.label, row.key): row for row in known_rows}
    for bucket, found in figures.items():
        row = rows.setdefault(bucket, JobStatistics(**bucket._asdict()))
        for name, count in found.counts.items():
            setattr(row, name, getattr(row, name) + count)
        for name, counts in found.distributions.items():
            setattr(row, name, Counter(getattr(row, name)) + counts)
    JobStatistics.objects.bulk_create(
        [rows[bucket] for bucket in figures],
        update_conflicts=True,
        unique_fields=["seconds", "dimension", "start", "label", "key"],
        update_fields=[*COUNTS, *DISTRIBUTIONS],
    )
    return True


def _within_limits(figures: Mapping[Bucket, Figures]) -> dict[Bucket, Figures]:
    """The same, with images and labels beyond the limit of their hour counted together."""
    open_ended = (str(Dimension.IMAGE), str(Dimension.LABEL))
    hours = {bucket.start for bucket in figures if bucket.seconds == HOUR}
    stored = JobStatistics.objects.filter(seconds=HOUR, start__in=hours, dimension__in=open_ended)
    known: defaultdict[tuple[str, str, datetime], set[str]] = defaultdict(set)
    for dimension, label, start, key in stored.values_list("dimension", "label", "start", "key"):
        known[dimension, label, start].add(key)
    found: defaultdict[Bucket, Figures] = defaultdict(Figures)
    for bucket, what in figures.items():
        key = bucket.key
        if bucket.dimension in open_ended:
            keys = known[bucket.dimension, bucket.label, bucket.start.replace(minute=0)]
            key = key if key in keys or len(keys) < MOST_KEYS else OTHERS
            keys.add(key)
        found[bucket._replace(key=key)].add(what)
    return found


def delete_old(tx: Transaction, items: Sequence[timedelta]) -> list[bool]:  # noqa: ARG001
    """Delete some of the statistics that are older than they are kept; answers whether there may be more."""
    old = Q()
    for seconds, kept in KEPT.items():
        old |= Q(seconds=seconds, start__lt=clock.now() - kept)
    pks = list(JobStatistics.objects.filter(old).values_list("pk", flat=True)[:DELETED_AT_ONCE])
    JobStatistics.objects.filter(pk__in=pks).delete()
    return [len(pks) == DELETED_AT_ONCE] * len(items)


# ------------------------------------------------------------------ reading


class Series(NamedTuple):
    """The figures of each step of a range of time, by when it begins; all steps have the same length."""

    step: timedelta
    steps: dict[datetime, Figures]


def series(since: datetime, until: datetime, most: int) -> Series:
    """What happened between two times, in at most this many steps."""
    seconds = _resolution(since, until)
    wanted = -(-(until - since).total_seconds() // most)
    step = timedelta(seconds=max(-(-wanted // seconds) * seconds, seconds))
    steps: dict[datetime, Figures] = {}
    at = since
    while at < until:
        steps[at] = Figures()
        at += step
    for row in _rows(seconds, since, until, Dimension.ALL):
        steps[since + max((row.start - since) // step, 0) * step].add(_figures(row))
    return Series(step, steps)


def groups(since: datetime, until: datetime, dimension: Dimension, label: str, most: int) -> list[tuple[str, Figures]]:
    """The figures by the values of a dimension, of those with the most ended jobs; by those of one label."""
    seconds = _resolution(since, until)
    rows = _rows(seconds, since, until, dimension).filter(label=label)
    ended = Sum(F("succeeded") + F("failed") + F("timed_out") + F("cancelled"))
    largest = rows.values_list("key").annotate(ended=ended).order_by("-ended", "key")[:most]
    keys = [key for key, _ in largest]
    found = {key: Figures() for key in keys}
    for row in rows.filter(key__in=keys):
        found[row.key].add(_figures(row))
    return list(found.items())


def _resolution(since: datetime, until: datetime) -> int:
    recent = since >= clock.now() - KEPT[MINUTE]
    return MINUTE if recent and until - since <= MINUTES_UP_TO else HOUR


def _rows(seconds: int, since: datetime, until: datetime, dimension: Dimension) -> QuerySet[JobStatistics]:
    # The minute or hour in which the range begins belongs to it.
    begin = since - timedelta(seconds=seconds)
    return JobStatistics.objects.filter(seconds=seconds, dimension=dimension, start__gt=begin, start__lt=until)


def _figures(row: JobStatistics) -> Figures:
    found = Figures(Counter({name: getattr(row, name) for name in COUNTS}))
    for name in DISTRIBUTIONS:
        found.distributions[name].update(getattr(row, name))
    return found


def position() -> tuple[int, dict[str, int]]:
    """What changes whenever statistics do, and how many jobs have not ended, by status."""
    return Installation.objects.values_list("counted_through", flat=True).get(), unfinished()


def unfinished() -> dict[str, int]:
    """How many jobs have not ended, by status."""
    statuses = [str(status) for status in JobStatus if status not in lifecycle.TERMINAL]
    rows = ContainerJob.objects.filter(status__in=statuses).values_list("status").annotate(jobs=Count("pk"))
    return {**dict.fromkeys(statuses, 0), **dict(rows.order_by())}
