"""What a job can be submitted with, beside its image and its command."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from pydantic import ValidationError

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
        first = error.errors()[0]
        raise TypeError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def submitted_once(job: JobInput) -> JobInput:
    """The job with a key by which it is submitted once, however often it is sent."""
    return job if job.idempotency_key else job.model_copy(update={"idempotency_key": uuid.uuid4().hex})
