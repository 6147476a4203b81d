"""The inputs of clients."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import strawberry
import strawberry_django
from django.db.models import Q
from django.db.models.fields.json import KeyTextTransform
from django.db.models.lookups import Exact
from strawberry import UNSET, auto
from strawberry.scalars import JSON

from container_manager import models
from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import EventKind, ExecutorType
from container_manager.domain.lifecycle import JobStatus
from container_manager.errors import ValidationFailed
from container_manager.specs import JobSpec, read_assumption, read_job
from container_manager.store import threads
from container_manager.store.events import Event
from graphql_api.context import Info
from graphql_api.enums import Strategy
from graphql_api.ids import bad_input, to_pk


@strawberry.input
class _HostSettings:
    config: JSON | None = UNSET
    region: str | None = UNSET
    labels: JSON | None = UNSET
    routing_weight: int | None = UNSET
    max_concurrent_jobs: int | None = UNSET
    max_memory_mb: int | None = UNSET
    max_cpu_cores: float | None = UNSET
    is_active: bool | None = UNSET


@strawberry.input
class HostInput(_HostSettings):
    name: str
    executor_type: ExecutorType


@strawberry.input
class HostPatch(_HostSettings):
    name: str | None = UNSET


@strawberry.input
class EnvironmentVariable:
    name: str
    value: str


@strawberry.input(
    description="A file system in memory, which counts against the job's memory; nothing in it can be executed."
)
class TmpfsInput:
    path: str
    size_mb: int


@strawberry.input
class JobInput:
    image: str
    name: str | None = UNSET
    command: list[str] | None = UNSET
    environment: list[EnvironmentVariable] | None = UNSET
    entry_point: list[str] | None = UNSET
    working_dir: str | None = UNSET
    user: str | None = strawberry.field(default=UNSET, description="NAME, UID or UID:GID; only on hosts that allow it.")
    network: str | None = strawberry.field(
        default=UNSET, description="Instead of the host's; only on hosts that allow it (config.allow.networks)."
    )
    read_only_root: bool | None = UNSET
    shm_size_mb: int | None = strawberry.field(
        default=UNSET, description="MiB of /dev/shm, which count as memory of the job; otherwise the engine's default."
    )
    tmpfs: list[TmpfsInput] | None = UNSET
    memory_limit_mb: int | None = UNSET
    cpu_limit: float | None = UNSET
    timeout_seconds: int | None = UNSET
    priority: int | None = UNSET
    preferred_executor: ExecutorType | None = UNSET
    executor_required: bool | None = UNSET
    region_preference: str | None = UNSET
    region_required: bool | None = UNSET
    strategy: Strategy | None = UNSET
    labels: JSON | None = UNSET
    host_selector: JSON | None = UNSET
    queue_timeout_seconds: int | None = strawberry.field(
        default=UNSET,
        description="FAILED with a reason when it has not been routed by then. None: waits as long as it takes.",
    )
    max_attempts: int | None = UNSET
    idempotency_key: str | None = strawberry.field(
        default=UNSET,
        description="The same key with the same input gives the same job back; with another input, Conflict.",
    )


def _as_sent(_: type, values: Mapping[str, Any], __: object) -> Mapping[str, Any]:
    return {
        name: value.value if isinstance(value, Strategy) else value
        for name, value in values.items()
        if value is not None
    }


# Thousands of inputs come at once, and the spec validates them anyway, so no object is built in between.
JobInput.__strawberry_definition__.from_input = _as_sent  # type: ignore[attr-defined]


@strawberry.input(description="A change to suppose while planning; nothing is written.")
class HostAssumption:
    host_id: strawberry.ID
    is_active: bool | None = UNSET
    is_draining: bool | None = UNSET
    routing_weight: int | None = UNSET
    max_concurrent_jobs: int | None = UNSET
    max_memory_mb: int | None = UNSET
    max_cpu_cores: float | None = UNSET


MOST_LABELS, MOST_FILTERS = 64, 16

# A limit may be removed by null; for any other field null counts as not given.
NULLABLE = frozenset({"max_memory_mb", "max_cpu_cores"})


def given(value: Any) -> dict[str, Any]:
    """The fields of an input that were given, as the specs read them."""
    if isinstance(value, Mapping):
        return dict(value)
    return {
        name: entry
        for name, entry in vars(value).items()
        if entry is not UNSET and (entry is not None or name in NULLABLE)
    }


READ_AT_ONCE = 200
LARGEST_BATCH, LARGEST_PLAN, LARGEST_CHECK = 10_000, 1000, 1000


def at_most(count: int, argument: str, limit: int = LARGEST_BATCH) -> None:
    """Raise BAD_USER_INPUT for a list that is too long."""
    if count > limit:
        bad_input(f"{argument}: {count} are too many; at most {limit} at a time.")


async def read_jobs(
    inputs: list[JobInput], argument: str, limit: int = LARGEST_BATCH
) -> list[JobSpec | ValidationFailed]:
    """Each input validated, in order; many of them in a thread."""
    at_most(len(inputs), argument, limit)
    if len(inputs) > READ_AT_ONCE:
        return await threads.prepare_request(_read_jobs, inputs, argument)
    return _read_jobs(inputs, argument)


def _read_jobs(inputs: list[JobInput], argument: str) -> list[JobSpec | ValidationFailed]:
    return [_read(entry, f"{argument}.{i}.") for i, entry in enumerate(inputs)]


def _read(entry: JobInput, prefix: str) -> JobSpec | ValidationFailed:
    try:
        return read_job(given(entry), prefix)
    except ValidationFailed as error:
        return error


def read_assumptions(assume: list[HostAssumption]) -> dict[int, dict[str, Any]]:
    """The assumed changes of each host, by id, as fields of HostState.

    Raises:
        ValidationFailed: a value is out of range.
        GraphQLError: BAD_USER_INPUT, a host is named twice.
    """
    assumed: dict[int, dict[str, Any]] = {}
    for i, entry in enumerate(assume):
        values = given(entry)
        pk = to_pk("ExecutorHost", values.pop("host_id"), f"assume.{i}.hostId")
        if pk in assumed:
            bad_input(f"assume.{i}.hostId: this host is named twice.")
        assumed[pk] = read_assumption(values, f"assume.{i}.")
    return assumed


# ------------------------------------------------------------------ filters


@strawberry_django.filter_type(models.ExecutorHost, name="HostFilter")
class HostFilter:
    name: auto
    executor_type: ExecutorType | None
    region: auto
    is_active: auto

    @strawberry_django.filter_field
    def health(self, value: HealthStatus, prefix: str) -> Q:
        return Q(**{f"{prefix}health_status": value})


class _Label(KeyTextTransform):
    """The value of a label. Django takes a name of digits for the index of a list."""

    def as_sqlite(self, compiler: Any, *_: Any, **__: Any) -> Any:
        column, parameters = compiler.compile(self.lhs)
        # A path cannot have every name in it.
        return f"(SELECT value FROM json_each({column}) WHERE key = %s)", (*parameters, self.key_name)  # noqa: S608

    def as_postgresql(self, compiler: Any, *_: Any, **__: Any) -> Any:
        column, parameters = compiler.compile(self.lhs)
        return f"({column} ->> CAST(%s AS text))", (*parameters, self.key_name)


@strawberry_django.filter_type(models.ContainerJob, name="JobFilter")
class JobFilter:
    name: auto
    executor_type: ExecutorType | None

    @strawberry_django.filter_field
    def status(self, value: list[JobStatus], prefix: str) -> Q:
        return Q(**{f"{prefix}status__in": value})

    @strawberry_django.filter_field
    def host_id(self, value: strawberry.ID, prefix: str) -> Q:
        return Q(**{f"{prefix}host": to_pk("ExecutorHost", value, "hostId")})

    @strawberry_django.filter_field
    def labels(self, value: JSON, prefix: str) -> Q:
        if not isinstance(value, dict):
            bad_input("labels: must be an object of names and values.")
        if len(value) > MOST_LABELS:
            bad_input(f"labels: at most {MOST_LABELS} can be asked for.")
        where = Q()
        for key, text in value.items():
            where &= Q(Exact(_Label(key, f"{prefix}labels"), str(text)))
        return where

    @strawberry_django.filter_field
    def submitted_after(self, value: datetime, prefix: str) -> Q:
        return Q(**{f"{prefix}submitted_at__gt": _in_utc(value, "submittedAfter")})

    @strawberry_django.filter_field
    def submitted_before(self, value: datetime, prefix: str) -> Q:
        return Q(**{f"{prefix}submitted_at__lt": _in_utc(value, "submittedBefore")})


def _in_utc(moment: datetime, argument: str) -> datetime:
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError):
        bad_input(f"{argument}: {moment.isoformat()} lies outside of the calendar.")


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

    def where(self) -> Q:
        kinds = Q() if self.kinds is None else Q(kind__in=self.kinds)
        return kinds & Q(**self.fields())

    def wanted(self) -> Callable[[Event], bool]:
        """The same condition as `where`, for events in memory."""
        kinds, fields = self.kinds, self.fields()
        return lambda event: (
            (kinds is None or event.kind in kinds)
            and all(getattr(event, name) == value for name, value in fields.items())
        )
