"""What lists can be filtered by, and their orders."""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import orjson
import strawberry
import strawberry_django
from django.db.models import BooleanField, DurationField, ExpressionWrapper, F, Func, Q
from django.db.models.lookups import GreaterThanOrEqual, LessThanOrEqual
from strawberry import UNSET, auto
from strawberry.scalars import JSON

from container_manager import models
from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import EventKind, ExecutorType
from container_manager.domain.lifecycle import JobStatus
from container_manager.domain.outcome import FailureReason
from container_manager.store import hosts as host_store
from container_manager.store import paging, pending
from container_manager.store.events import Event
from graphql_api.context import Info
from graphql_api.enums import CheckCode
from graphql_api.ids import bad_input, in_utc, to_pk

MOST_LABELS, MOST_FILTERS = 64, 16
MOST_CORES = 10_000
LONGEST_DURATION = 10**9
"""Seconds."""


@strawberry.enum(description="SUBMITTED: by age. FINISHED: by their end; only jobs that have ended.")
class JobOrder(Enum):
    SUBMITTED_DESC = strawberry.enum_value(paging.NEWEST_FIRST, description="Newest first.")
    SUBMITTED_ASC = strawberry.enum_value(paging.OLDEST_FIRST, description="Oldest first.")
    FINISHED_DESC = strawberry.enum_value(paging.LAST_ENDED_FIRST, description="The last that ended first.")
    FINISHED_ASC = strawberry.enum_value(paging.FIRST_ENDED_FIRST, description="The first that ended first.")
    QUEUE = strawberry.enum_value(
        paging.QUEUE_ORDER,
        description="Jobs that wait, in the order in which they are routed as far as their requirements allow it: by "
        "priority, then by age.",
    )


@strawberry_django.filter_type(models.ExecutorHost, name="HostFilter")
class HostFilter:
    name: auto
    executor_type: ExecutorType | None
    region: auto
    is_active: auto
    is_draining: auto

    @strawberry_django.filter_field(description="A part of the name, in small or capital letters.")
    def name_contains(self, value: str, prefix: str) -> Q:
        return Q(**{f"{prefix}name__icontains": value})

    @strawberry_django.filter_field(description="Has at least so many free slots.")
    def min_free_slots(self, value: int, prefix: str) -> Q:
        return Q(GreaterThanOrEqual(host_store.free_slots(prefix), value))

    @strawberry_django.filter_field(description="Has at least so much free memory; without a limit it always has.")
    def min_free_memory_mb(self, value: int, prefix: str) -> Q:
        return Q(GreaterThanOrEqual(host_store.free_memory(prefix), value))

    @strawberry_django.filter_field(description="Has at least so many free cores; without a limit it always has.")
    def min_free_cpu_cores(self, value: float, prefix: str) -> Q:
        if not 0 <= value <= MOST_CORES:
            bad_input(f"minFreeCpuCores: must be from 0 to {MOST_CORES}.")
        return Q(GreaterThanOrEqual(host_store.free_millicores(prefix), round(value * 1000)))

    @strawberry_django.filter_field
    def health(self, value: HealthStatus, prefix: str) -> Q:
        return Q(**{f"{prefix}health_status": value})

    @strawberry_django.filter_field(
        description="An object: each label must have this value, or one of these if it is a list."
    )
    def labels(self, value: JSON, prefix: str) -> Q:
        return _has_labels(value, prefix)


def _without_distinct(kind: type) -> None:
    """Take away a field of the library that would have no effect: no list has a row twice."""
    definition: Any = kind.__strawberry_definition__  # type: ignore[attr-defined]
    definition.fields = [field for field in definition.fields if field.name != "DISTINCT"]


class _HasLabel(Func):
    """Whether a label has a value. Never NULL, so that its negation is true of all others."""

    output_field = BooleanField()

    def __init__(self, column: str, name: str, value: str) -> None:
        super().__init__(column)
        self.name, self.value = name, value

    def as_sqlite(self, compiler: Any, *_: Any, **__: Any) -> Any:
        column, parameters = compiler.compile(self.source_expressions[0])
        # A path cannot have every name in it.
        sql = f"EXISTS (SELECT 1 FROM json_each({column}) WHERE key = %s AND value = %s)"  # noqa: S608 - our own column
        return sql, (*parameters, self.name, self.value)

    def as_postgresql(self, compiler: Any, *_: Any, **__: Any) -> Any:
        column, parameters = compiler.compile(self.source_expressions[0])
        return f"({column} @> %s::jsonb)", (*parameters, orjson.dumps({self.name: self.value}).decode())


def _has_labels(wanted: JSON, prefix: str) -> Q:
    if not isinstance(wanted, dict):
        bad_input("labels: must be an object of names and values.")
    values = {name: value if isinstance(value, list) else [value] for name, value in wanted.items()}
    if sum(map(len, values.values())) > MOST_LABELS:
        bad_input(f"labels: at most {MOST_LABELS} can be asked for.")
    where = Q()
    for name, accepted in values.items():
        any_of = Q(pk__in=[])
        for value in accepted:
            any_of |= Q(_HasLabel(f"{prefix}labels", name, str(value)))
        where &= any_of
    return where


@strawberry_django.filter_type(models.ContainerJob, name="JobFilter")
class JobFilter:
    name: auto
    executor_type: ExecutorType | None
    submitted_by: auto

    @strawberry_django.filter_field(description="A part of the name, in small or capital letters.")
    def name_contains(self, value: str, prefix: str) -> Q:
        return Q(**{f"{prefix}name__icontains": value})

    @strawberry_django.filter_field(description="A part of the image, in small or capital letters.")
    def image_contains(self, value: str, prefix: str) -> Q:
        return Q(**{f"{prefix}image__icontains": value})

    @strawberry_django.filter_field
    def status(self, value: list[JobStatus], prefix: str) -> Q:
        return Q(**{f"{prefix}status__in": value})

    @strawberry_django.filter_field(description="The name of the host of the latest attempt.")
    def host_name(self, value: str, prefix: str) -> Q:
        return _known(f"{prefix}host", Q(**{f"{prefix}host__name": value}))

    @strawberry_django.filter_field(description="The host of the latest attempt.")
    def host_id(self, value: strawberry.ID, prefix: str) -> Q:
        return Q(**{f"{prefix}host": to_pk("ExecutorHost", value, "hostId")})

    @strawberry_django.filter_field(
        description="An object: each label must have this value, or one of these if it is a list."
    )
    def labels(self, value: JSON, prefix: str) -> Q:
        return _has_labels(value, prefix)

    @strawberry_django.filter_field(description="Later than this; a time without a zone is in UTC.")
    def submitted_after(self, value: datetime, prefix: str) -> Q:
        return Q(**{f"{prefix}submitted_at__gt": in_utc(value, "submittedAfter")})

    @strawberry_django.filter_field(description="Earlier than this; a time without a zone is in UTC.")
    def submitted_before(self, value: datetime, prefix: str) -> Q:
        return Q(**{f"{prefix}submitted_at__lt": in_utc(value, "submittedBefore")})

    @strawberry_django.filter_field(description="Ended later than this; a time without a zone is in UTC.")
    def finished_after(self, value: datetime, prefix: str) -> Q:
        return _known(f"{prefix}finished_at", Q(**{f"{prefix}finished_at__gt": in_utc(value, "finishedAfter")}))

    @strawberry_django.filter_field(description="Ended earlier than this; a time without a zone is in UTC.")
    def finished_before(self, value: datetime, prefix: str) -> Q:
        return _known(f"{prefix}finished_at", Q(**{f"{prefix}finished_at__lt": in_utc(value, "finishedBefore")}))

    @strawberry_django.filter_field(description="Ran at least so long, from start to end.")
    def min_duration_seconds(self, value: float, prefix: str) -> Q:
        return _ran(prefix, GreaterThanOrEqual, value, "minDurationSeconds")

    @strawberry_django.filter_field(description="Ran at most so long, from start to end.")
    def max_duration_seconds(self, value: float, prefix: str) -> Q:
        return _ran(prefix, LessThanOrEqual, value, "maxDurationSeconds")

    @strawberry_django.filter_field
    def exit_code(self, value: list[int], prefix: str) -> Q:
        return _known(f"{prefix}exit_code", Q(**{f"{prefix}exit_code__in": value}))

    @strawberry_django.filter_field
    def failure(self, value: list[FailureReason], prefix: str) -> Q:
        return Q(**{f"{prefix}failure__in": [str(reason) for reason in value]})

    @strawberry_django.filter_field(description="A part of the error, in small or capital letters.")
    def error_contains(self, value: str, prefix: str) -> Q:
        return Q(**{f"{prefix}error__icontains": value})

    @strawberry_django.filter_field(description="At its n-th attempt or a later one.")
    def min_attempt(self, value: int, prefix: str) -> Q:
        return Q(**{f"{prefix}attempt__gte": value})

    @strawberry_django.filter_field(description="Jobs that wait, and that some host fails to take by one of these.")
    def waiting_on(self, value: list[CheckCode], prefix: str) -> Q:
        keys = pending.classes_refused_for([code.value for code in value])
        return Q(**{f"{prefix}status": JobStatus.PENDING, f"{prefix}class_key__in": keys})


for _kind in (HostFilter, JobFilter):
    _without_distinct(_kind)


@strawberry.input(description="Which decisions are wanted: those that meet all that is given.")
class RoutingDecisionFilter:
    job_id: strawberry.ID | None = None
    host_id: strawberry.ID | None = strawberry.field(default=None, description="The host that was chosen.")
    refused: bool | None = strawberry.field(default=None, description="Whether no host could take the job.")
    rejection: list[CheckCode] | None = strawberry.field(
        default=None, description="Refusals in which some host failed one of these checks."
    )
    decided_after: datetime | None = None
    decided_before: datetime | None = None

    def search(self) -> paging.Search:
        """What this looks for, newest first."""
        indexed, rest = Q(), Q()
        if self.job_id is not None:
            indexed &= Q(job_id=to_pk("ContainerJob", self.job_id, "jobId"))
        if self.host_id is not None:
            indexed &= Q(host_id=to_pk("ExecutorHost", self.host_id, "hostId"))
        if self.refused is not None:
            rest &= Q(host_name="") if self.refused else ~Q(host_name="")
        if self.rejection is not None:
            rest &= pending.names_any("rejections", [code.value for code in self.rejection])
        if self.decided_after is not None:
            rest &= Q(decided_at__gt=in_utc(self.decided_after, "decidedAfter"))
        if self.decided_before is not None:
            rest &= Q(decided_at__lt=in_utc(self.decided_before, "decidedBefore"))
        return paging.Search(models.RoutingDecision, indexed=indexed, rest=rest)


def _known(column: str, where: Q) -> Q:
    """The condition, with a negation that is true of rows without a value."""
    return Q(**{f"{column}__isnull": False}) & where


def _ran(prefix: str, compare: Any, seconds: float, argument: str) -> Q:
    if not 0 <= seconds <= LONGEST_DURATION:
        bad_input(f"{argument}: must be from 0 to {LONGEST_DURATION}.")
    started, finished = f"{prefix}started_at", f"{prefix}finished_at"
    took = ExpressionWrapper(F(finished) - F(started), DurationField())
    return _known(started, _known(finished, Q(compare(took, timedelta(seconds=seconds)))))


def search(filters: Any, order: JobOrder, info: Info) -> paging.Search:
    """What a filter of jobs looks for. One of the conditions that have an index is kept apart from the others."""
    where = condition(filters, models.ContainerJob, info)
    given = {name: value for name, value in vars(filters).items() if value not in (None, UNSET)} if filters else {}
    columns: Any = order.value
    indexed, answered = Q(), ""
    if "OR" in given:
        # Rows that do not meet the other conditions are wanted too.
        return paging.Search(order=columns, rest=where)
    if columns.names != ("pk",):
        # Its own index gives the order; a condition that had another one would make the database sort.
        pass
    elif (host := given.get("host_id")) is not None:
        indexed, answered = Q(host=to_pk("ExecutorHost", host, "hostId")), "host_id"
    elif len(statuses := given.get("status", ())) == 1:
        indexed, answered = Q(status=str(statuses[0])), "status"
    if given.keys() <= {answered}:
        return paging.Search(order=columns, indexed=indexed)
    times = [given.get(name) for name in ("submitted_after", "submitted_before")]
    since, until = (time and in_utc(time, "submittedAfter") for time in times)
    return paging.Search(order=columns, indexed=indexed, rest=where, submitted=(since, until))


def condition(filters: Any, model: Any, info: Info) -> Q:
    """The condition of a filter input; nothing is read."""
    if not filters:
        return Q()
    _check_nesting(filters)
    _, where = strawberry_django.filters.process_filters(filters, model.objects.none(), info)
    return where


def _check_nesting(filters: Any) -> None:
    """Refuse filters that combine too many others: the database would evaluate each for every row."""
    count, waiting = 0, [filters]
    while waiting:
        entry = waiting.pop()
        count += 1
        if count > MOST_FILTERS:
            bad_input(f"filters: at most {MOST_FILTERS} can be combined by AND, OR and NOT.")
        waiting += filter(None, (getattr(entry, name) for name in ("AND", "OR", "NOT")))


@strawberry.input
class RoutingEventFilter:
    kinds: list[EventKind] | None = None
    job_id: strawberry.ID | None = None
    host_id: strawberry.ID | None = None
    executor_type: ExecutorType | None = None

    def fields(self) -> dict[str, Any]:
        """Column and value of each condition except the kinds."""
        conditions = {
            "job_id": None if self.job_id is None else to_pk("ContainerJob", self.job_id, "jobId"),
            "host_id": None if self.host_id is None else to_pk("ExecutorHost", self.host_id, "hostId"),
            "executor_type": None if self.executor_type is None else str(self.executor_type),
        }
        return {name: value for name, value in conditions.items() if value is not None}

    def search(self) -> paging.Search:
        """What this looks for, oldest first."""
        fields = self.fields()
        indexed = Q(**{name: fields.pop(name) for name in ("job_id", "host_id") if name in fields})
        kinds = Q() if self.kinds is None else Q(kind__in=self.kinds)
        return paging.Search(models.RoutingEvent, paging.OLDEST_FIRST, indexed, kinds & Q(**fields))

    def wanted(self) -> Callable[[Event], bool]:
        """The same condition as `search` has, for events in memory."""
        kinds, fields = self.kinds, self.fields()
        return lambda event: (
            (kinds is None or event.kind in kinds)
            and all(getattr(event, name) == value for name, value in fields.items())
        )
