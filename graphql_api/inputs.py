"""The inputs of clients."""

from collections.abc import Mapping
from typing import Any

import strawberry
from pydantic.alias_generators import to_camel
from strawberry import UNSET
from strawberry.scalars import JSON

from container_manager.domain.kinds import ExecutorType
from container_manager.errors import FieldError, ValidationFailed
from container_manager.specs import JobSpec, read_assumption, read_job
from container_manager.store import threads
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


# A limit may be removed by null; for any other field of a new object null counts as not given.
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


def _instead(name: str) -> str:
    """What to send instead of null."""
    empty = {"region": '""', "labels": "{}"}.get(name)
    return "leave it out to keep its value" + (f", or send {empty} to empty it" if empty else "")


def changes(patch: HostPatch) -> dict[str, Any]:
    """The fields of a patch that were given.

    Raises:
        ValidationFailed: a field is null that must have a value.
    """
    found = {name: entry for name, entry in vars(patch).items() if entry is not UNSET}
    nulls = [to_camel(name) for name, entry in found.items() if entry is None and name not in NULLABLE]
    if nulls:
        raise ValidationFailed([FieldError(name, f"{name}: must not be null; {_instead(name)}.") for name in nulls])
    return found


READ_AT_ONCE = 200
LARGEST_BATCH, LARGEST_PLAN, LARGEST_CHECK, LARGEST_ADDITION = 10_000, 1000, 1000, 100


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
