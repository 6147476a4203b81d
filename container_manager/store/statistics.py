"""Statistics of jobs, made from the event log: counts and durations by minute and by hour.

Each event is counted once: what was counted and up to which event are committed together.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from django.db.models import Count, F, Q, QuerySet, Sum

from container_manager import clock
from container_manager.domain import histogram, lifecycle
from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import JobStatus
from container_manager.models import ContainerJob, ExecutorHost, Installation, JobAttempt, JobStatistics
from container_manager.store import bulk
from container_manager.store.events import Event, following
from container_manager.store.transaction import JOB_ENDS, Transaction

COUNTED_AT_ONCE = 5000
MINUTE, HOUR = 60, 3600
KEPT = {MINUTE: timedelta(days=2), HOUR: timedelta(days=400)}
DELETED_AT_ONCE = 5000

MOST_KEYS, OTHERS = 100, "(others)"
"""Of images and labels, this many different ones have statistics of their own in an hour."""

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

KINDS = {
    EventKind.JOB_SUBMITTED: "submitted",
    EventKind.JOB_REFUSED: "refused",
    EventKind.JOB_STARTED: "started",
}


class Bucket(NamedTuple):
    """What one row is about."""

    seconds: int
    start: datetime
    dimension: str
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
    events = following(since, COUNTED_AT_ONCE)
    if not events:
        return None
    figures: defaultdict[Bucket, Figures] = defaultdict(Figures)
    ends = [event for event in events if event.kind in JOB_ENDS]
    attempts, regions = _attempts(ends), dict(ExecutorHost.objects.values_list("pk", "region")) if ends else {}
    for event in events:
        if (name := KINDS.get(EventKind(event.kind))) is not None:
            _count(figures, event.at, [(Dimension.ALL, "")], Figures(Counter({name: 1})))
    for event in ends:
        if (found := attempts.get((event.job_id, event.attempt))) is not None:
            job, attempt = found
            _count(figures, event.at, _dimensions(event, job, regions), _end(job, attempt))
    return Collected(since, events[-1].id, figures, len(events) == COUNTED_AT_ONCE)


def _attempts(ends: Sequence[Event]) -> dict[tuple[int | None, int | None], tuple[ContainerJob, Any]]:
    """Each job that has ended with the attempt that did, by their numbers."""
    columns = ("image", "labels", "attempt", "status", "failure", *_TIMES, "submitted_at")
    jobs = ContainerJob.objects.filter(bulk.id_in("id", [event.job_id for event in ends if event.job_id])).only(
        *columns
    )
    by_id = {job.pk: job for job in jobs}
    found: dict[tuple[int | None, int | None], tuple[ContainerJob, Any]] = {
        (job.pk, job.attempt): (job, job) for job in by_id.values()
    }
    earlier = [event.job_id for event in ends if event.job_id in by_id and (event.job_id, event.attempt) not in found]
    for attempt in JobAttempt.objects.filter(job_id__in=earlier):
        found[attempt.job_id, attempt.attempt] = by_id[attempt.job_id], attempt
    return found


_TIMES = ("queued_at", "routed_at", "launched_at", "started_at", "finished_at")


def _end(job: ContainerJob, attempt: Any) -> Figures:
    end = Figures(Counter({str(attempt.status): 1}))
    if attempt.failure:
        end.distributions["failures"][attempt.failure] += 1
    spans = {
        "queued": (attempt.queued_at or (job.submitted_at if attempt.attempt == 1 else None), attempt.routed_at),
        "launched": (attempt.routed_at, attempt.started_at),
        "ran": (attempt.started_at, attempt.finished_at),
    }
    for name, (since, until) in spans.items():
        if since is not None and until is not None:
            end.distributions[name][histogram.class_of((until - since).total_seconds())] += 1
    return end


def _dimensions(event: Event, job: ContainerJob, regions: Mapping[int, str]) -> list[tuple[Dimension, str]]:
    found = [(Dimension.ALL, ""), (Dimension.IMAGE, job.image)]
    found += [(Dimension.LABEL, f"{name}={value}") for name, value in job.labels.items()]
    if event.host_id is not None:
        found += [(Dimension.HOST, event.host_name), (Dimension.EXECUTOR_TYPE, event.executor_type)]
        found += [(Dimension.REGION, regions[event.host_id])] if event.host_id in regions else []
    return found


def _count(
    figures: defaultdict[Bucket, Figures], at: datetime, dimensions: Iterable[tuple[Dimension, str]], what: Figures
) -> None:
    for seconds in (MINUTE, HOUR):
        start = at.replace(second=0, microsecond=0, minute=at.minute if seconds == MINUTE else 0)
        for dimension, key in dimensions:
            figures[Bucket(seconds, start, str(dimension), key[:LONGEST_KEY])].add(what)


LONGEST_KEY = 300


def store(tx: Transaction, items: Sequence[Collected]) -> list[bool]:  # noqa: ARG001
    """Add what was collected, unless another process has done so meanwhile; answers whether it was added."""
    return [_store(item) for item in items]


def _store(item: Collected) -> bool:
    known = Installation.objects.filter(counted_through=item.since).update(counted_through=item.until)
    if not known:
        return False
    figures = _within_limits(item.figures)
    starts = {bucket.start for bucket in figures}
    rows = {
        Bucket(row.seconds, row.start, row.dimension, row.key): row
        for row in JobStatistics.objects.filter(start__in=starts, key__in={bucket.key for bucket in figures})
    }
    for bucket, found in figures.items():
        row = rows.setdefault(bucket, JobStatistics(**bucket._asdict()))
        for name, count in found.counts.items():
            setattr(row, name, getattr(row, name) + count)
        for name, counts in found.distributions.items():
            setattr(row, name, histogram.merged([getattr(row, name), counts]))
    JobStatistics.objects.bulk_create(
        [rows[bucket] for bucket in figures],
        update_conflicts=True,
        unique_fields=["seconds", "dimension", "key", "start"],
        update_fields=[*COUNTS, *DISTRIBUTIONS],
    )
    return True


def _within_limits(figures: Mapping[Bucket, Figures]) -> dict[Bucket, Figures]:
    """The same, with images and labels beyond the limit of their hour counted together."""
    open_ended = (str(Dimension.IMAGE), str(Dimension.LABEL))
    hours = {bucket.start for bucket in figures if bucket.seconds == HOUR}
    stored = JobStatistics.objects.filter(seconds=HOUR, start__in=hours, dimension__in=open_ended)
    known: defaultdict[tuple[str, datetime], set[str]] = defaultdict(set)
    for dimension, start, key in stored.values_list("dimension", "start", "key"):
        known[dimension, start].add(key)
    found: defaultdict[Bucket, Figures] = defaultdict(Figures)
    for bucket, what in figures.items():
        key = bucket.key
        if bucket.dimension in open_ended:
            keys = known[bucket.dimension, bucket.start.replace(minute=0)]
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
    rows = _rows(seconds, since, until, dimension)
    if dimension is Dimension.LABEL:
        rows = rows.filter(key__startswith=f"{label}=")
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
    """What changes whenever statistics or the number of unfinished jobs do."""
    return Installation.objects.values_list("counted_through", flat=True).get(), unfinished()


def unfinished() -> dict[str, int]:
    """How many jobs have not ended, by status."""
    statuses = [str(status) for status in JobStatus if status not in lifecycle.TERMINAL]
    rows = ContainerJob.objects.filter(status__in=statuses).values_list("status").annotate(jobs=Count("pk"))
    return {**dict.fromkeys(statuses, 0), **dict(rows.order_by())}
