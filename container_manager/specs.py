"""Validation of what clients send. Errors name each field as the API does."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from container_manager.domain.kinds import ExecutorType, Role
from container_manager.errors import FieldError, ValidationFailed
from container_manager.executors.configs import CONFIGS, config_errors, is_container_path, is_network, message_of
from container_manager.executors.exceptions import ExecutorHostError
from container_manager.routing.types import HIGHEST_PRIORITY, LEAST_CPU, LEAST_MEMORY, MOST_CPU

# distribution/reference: [registry[:port]/]path[:tag][@digest], the path in lower case.
_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@[a-z0-9]+:[0-9a-f]{32,})?",
    re.ASCII,
)
LARGEST_INTEGER = 2**31 - 1
LONGEST_TEXT, LONGEST_TEXTS = 131_071, 262_144
"""Characters of one argument or variable, which is what Linux allows, and of all of a job's."""
LARGEST_CONFIG = 262_144
LONGEST_LIFE = 36_500
"""Days that a token may last."""
LONGEST_QUEUE_TIMEOUT = 10 * 365 * 86_400


def _is_image(image: str) -> str:
    if not _IMAGE.fullmatch(image):
        raise ValueError("is not an image reference like registry.example.org/team/app:1.0")
    return image


def _is_variable(name: str) -> str:
    if not name or "=" in name:
        raise ValueError("a variable's name must not be empty or contain =")
    return name


def _is_working_dir(path: str) -> str:
    if path and not path.startswith("/"):
        raise ValueError("must be an absolute path in the container")
    return path


def _is_user(user: str) -> str:
    names = user.split(":") if user else []
    if len(names) > 2 or not all(re.fullmatch(r"[A-Za-z0-9_][\w.-]*", name, re.ASCII) for name in names):
        raise ValueError("must be NAME, UID, NAME:GROUP or UID:GID")
    if any(name.isdigit() and int(name) > LARGEST_INTEGER for name in names):
        raise ValueError(f"a UID or GID is at most {LARGEST_INTEGER}")
    return user


def _is_network(name: str) -> str:
    return is_network(name) if name else name


def _is_host_name(name: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", name):
        raise ValueError("must begin with a letter or digit, followed by letters, digits, _ . or -")
    return name


def _has_no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


def _can_be_kept(config: dict[str, Any]) -> dict[str, Any]:
    try:
        written = orjson.dumps(config)
    except orjson.JSONEncodeError as error:
        raise ValueError("is nested too deeply") from error
    if len(written) > LARGEST_CONFIG:
        raise ValueError(f"has {len(written)} bytes; at most {LARGEST_CONFIG} are allowed")
    if rb"\u0000" in written:
        raise ValueError("must not contain a NUL character")
    return config


NoNul = AfterValidator(_has_no_nul)
Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT), NoNul]
ShortText = Annotated[str, StringConstraints(max_length=100), NoNul]
ShortName = Annotated[str, StringConstraints(min_length=1, max_length=100), NoNul]
Labels = Annotated[dict[ShortName, ShortText], Field(max_length=64)]
Count = Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]


class Spec(BaseModel):
    """The base of all inputs."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class EnvironmentVariableSpec(Spec):
    """One environment variable."""

    name: Annotated[str, StringConstraints(max_length=255), AfterValidator(_is_variable), NoNul]
    value: Text


class TmpfsSpec(Spec):
    """A file system in memory, mounted into the container."""

    path: Annotated[str, StringConstraints(max_length=255), AfterValidator(is_container_path), NoNul]
    size_mb: Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]


class JobSpec(Spec):
    """A job to run. Memory in MiB, CPU in cores, times in seconds."""

    image: Annotated[str, StringConstraints(max_length=500), AfterValidator(_is_image)]
    name: Annotated[str, StringConstraints(max_length=200), NoNul] = ""
    command: Annotated[list[Text], Field(max_length=1000, default_factory=list)]
    entry_point: Annotated[list[Text], Field(max_length=1000, default_factory=list)]
    working_dir: Annotated[str, StringConstraints(max_length=500), AfterValidator(_is_working_dir), NoNul] = ""
    user: Annotated[str, StringConstraints(max_length=100), AfterValidator(_is_user)] = ""
    network: Annotated[str, StringConstraints(max_length=100), AfterValidator(_is_network)] = ""
    read_only_root: bool = False
    shm_size_mb: Annotated[int, Field(ge=1, le=LARGEST_INTEGER)] | None = None
    tmpfs: Annotated[list[TmpfsSpec], Field(max_length=16, default_factory=list)]
    environment: Annotated[list[EnvironmentVariableSpec], Field(max_length=1000, default_factory=list)]
    memory_limit_mb: Annotated[int, Field(ge=LEAST_MEMORY, le=LARGEST_INTEGER)] | None = None
    cpu_limit: Annotated[float, Field(ge=LEAST_CPU / 1000, le=10_000, allow_inf_nan=False)] | None = None
    timeout_seconds: Count | None = None
    priority: Annotated[int, Field(ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY)] = 0
    preferred_executor: ExecutorType | None = None
    executor_required: bool = False
    region_preference: ShortText = ""
    region_required: bool = False
    strategy: Annotated[str, StringConstraints(pattern="^(weighted|balanced|packed)$")] | None = None
    labels: Annotated[Labels, Field(default_factory=dict)]
    host_selector: Annotated[Labels, Field(default_factory=dict)]
    queue_timeout_seconds: Annotated[int, Field(ge=1, le=LONGEST_QUEUE_TIMEOUT)] | None = None
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 1
    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=255), NoNul] | None = None

    @model_validator(mode="after")
    def _what_is_required_is_named(self) -> "JobSpec":
        if self.executor_required and self.preferred_executor is None:
            raise ValueError("executorRequired: needs a preferredExecutor")
        if len({variable.name for variable in self.environment}) != len(self.environment):
            raise ValueError("environment: a variable is named twice")
        if len({mount.path for mount in self.tmpfs}) != len(self.tmpfs):
            raise ValueError("tmpfs: a path is named twice")
        texts = [*self.command, *self.entry_point, *(variable.value for variable in self.environment)]
        if sum(map(len, texts)) > LONGEST_TEXTS:
            raise ValueError(f"command: with entryPoint and environment it has more than {LONGEST_TEXTS} characters")
        if self.region_required and not self.region_preference:
            raise ValueError("regionRequired: needs a regionPreference")
        return self


class _HostLimits(Spec):
    routing_weight: Annotated[int, Field(ge=0, le=1000)] = 100
    max_concurrent_jobs: Annotated[int, Field(ge=0, le=LARGEST_INTEGER)] = 10
    max_memory_mb: Annotated[int, Field(ge=0, le=LARGEST_INTEGER)] | None = None
    max_cpu_cores: Annotated[float, Field(ge=0, le=MOST_CPU / 1000, allow_inf_nan=False)] | None = None
    is_active: bool = True


class HostSpec(_HostLimits):
    """A host, or with only some fields set, the change of one."""

    name: Annotated[str, StringConstraints(max_length=100), AfterValidator(_is_host_name)] = ""
    executor_type: ExecutorType = ExecutorType.DOCKER
    config: Annotated[dict[str, Any], AfterValidator(_can_be_kept)] = {}
    region: ShortText = ""
    labels: Labels = {}


class HostAssumptionSpec(_HostLimits):
    """Changes of a host to assume while planning; only the fields that are set."""

    is_draining: bool = False


def _is_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must have printable characters only")
    return text


class TokenSpec(Spec):
    """An API token to create."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_is_printable)]
    role: Role
    expires_in_days: Annotated[int, Field(ge=1, le=LONGEST_LIFE)] | None = None


def read_token(values: Mapping[str, Any]) -> TokenSpec:
    """A token from its fields.

    Raises:
        ValidationFailed: a value is out of range.
    """
    try:
        return TokenSpec.model_validate(values)
    except ValidationError as error:
        raise ValidationFailed(_field_errors(error)) from error


def read_job(values: Mapping[str, Any], prefix: str = "") -> JobSpec:
    """Validate a job's input.

    Raises:
        ValidationFailed: fields are invalid; each is named, with `prefix` before it.
    """
    try:
        return JobSpec.model_validate(values)
    except ValidationError as error:
        raise ValidationFailed(_field_errors(error, prefix)) from error


def read_host(values: Mapping[str, Any]) -> HostSpec:
    """Validate a host's input or patch.

    Raises:
        ValidationFailed: fields are invalid; each is named.
    """
    try:
        return HostSpec.model_validate(values)
    except ValidationError as error:
        raise ValidationFailed(_field_errors(error)) from error


_ASSUMABLE = {
    "is_active": "is_active",
    "is_draining": "is_draining",
    "routing_weight": "weight",
    "max_concurrent_jobs": "max_jobs",
    "max_memory_mb": "max_memory",
    "max_cpu_cores": "max_cpu",
}


def read_assumption(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Validate the assumptions about a host; returns the fields of a HostState that they change.

    Raises:
        ValidationFailed: fields are invalid; each is named, with `prefix` before it.
    """
    try:
        spec = HostAssumptionSpec.model_validate(values)
    except ValidationError as error:
        raise ValidationFailed(_field_errors(error, prefix)) from error
    changes = {_ASSUMABLE[name]: value for name, value in spec.model_dump(include=spec.model_fields_set).items()}
    if changes.get("max_cpu") is not None:
        changes["max_cpu"] = round(changes["max_cpu"] * 1000)
    return changes


def read_config(executor_type: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Validate a host's config for its executor type; returns the keys that were given, with their values in form.

    Raises:
        ValidationFailed: keys are unknown or have invalid values; each is named `config.KEY`. Or the package of the
            type cannot be loaded.
    """
    try:
        return CONFIGS[executor_type].model_validate(config).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise ValidationFailed([FieldError(path, text) for path, text in config_errors(error)]) from error
    except ExecutorHostError as error:
        raise ValidationFailed([FieldError("executorType", f"executorType: {error}")]) from error


def _field_errors(error: ValidationError, prefix: str = "") -> list[FieldError]:
    found = []
    for entry in error.errors():
        text = message_of(entry)
        path = ".".join(
            to_camel(part) if isinstance(part, str) and not i else str(part) for i, part in enumerate(entry["loc"])
        )
        if not path:
            path, _, text = text.partition(": ")
        found.append(FieldError(prefix + path, f"{prefix}{path}: {text}."))
    return found
