"""What a job can be submitted with, beside its image and its command."""

import difflib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from pydantic import BaseModel, ValidationError

from container_manager.client.generated.input_types import JobInput


class JobOptions(TypedDict, total=False):
    """The fields of `JobInput` but image and command; it describes each. `environment` and `tmpfs` are mappings."""

    name: str
    environment: Mapping[str, str]
    entry_point: Sequence[str]
    working_dir: str
    user: str
    network: str
    read_only_root: bool
    shm_size_mb: int
    tmpfs: Mapping[str, int]
    memory_limit_mb: int
    cpu_limit: float
    timeout_seconds: int
    priority: int
    preferred_executor: str
    executor_required: bool
    region_preference: str
    region_required: bool
    strategy: str
    labels: Mapping[str, str]
    host_selector: Mapping[str, Any]
    queue_timeout_seconds: int
    max_attempts: int
    idempotency_key: str


def job_input(image: str, command: Sequence[str] = (), **options: Unpack[JobOptions]) -> JobInput:
    """The input for a job.

    Raises:
        TypeError: there is no such option, or a value has the wrong type.
    """
    given: dict[str, Any] = {"image": image, **options}
    for name, value in (("command", command), ("entry_point", options.get("entry_point"))):
        if isinstance(value, str):
            raise TypeError(f"{name}: must be a list of arguments, such as {value.split()!r}")
    if command:
        given["command"] = list(command)
    for name, key, value in (("environment", "name", "value"), ("tmpfs", "path", "sizeMb")):
        if isinstance(pairs := given.get(name), Mapping):
            given[name] = [{key: one, value: other} for one, other in pairs.items()]
    for name in ("preferred_executor", "strategy"):
        if isinstance(given.get(name), str):
            given[name] = given[name].upper()
    try:
        return JobInput.model_validate(given)
    except ValidationError as error:
        raise TypeError(explained(error, JobInput)) from None


def explained(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first problem of an input of this kind, for people."""
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "enum":
        known = str(first.get("ctx", {}).get("expected", ""))
        return f"{name}: {first['input']!r} is none of {known}"
    if first["type"] != "extra_forbidden":
        return f"{name}: {first['msg']}"
    close = difflib.get_close_matches(name, kind.model_fields, 1, 0.5)
    return f"{name}: there is no such field{f'; did you mean {close[0]}?' if close else ''}"


def submitted_once(job: JobInput) -> JobInput:
    """The job with a key by which it is submitted once, however often it is sent."""
    return job if job.idempotency_key else job.model_copy(update={"idempotency_key": uuid.uuid4().hex})
