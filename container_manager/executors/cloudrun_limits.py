"""What Cloud Run takes, as its documentation says. Pure: known before any host of that kind exists.

https://cloud.google.com/run/docs/configuring/jobs/cpu, …/memory-limits, …/task-timeout, …/environment-variables,
https://cloud.google.com/run/quotas and https://cloud.google.com/run/docs/deploying#images
"""

import re
from collections.abc import Iterator, Mapping

from container_manager.executors.images import registry_of

SIZES = {1: (512, 4096), 2: (512, 8192), 4: (2048, 16_384), 6: (4096, 24_576), 8: (4096, 32_768)}
"""By CPUs: the least and the most memory, in MiB."""

TIMEOUT, LONGEST_TIMEOUT = 86_400, 604_800
"""Seconds that a task may run, and that it may run where longer ones are let."""

LONG = "a timeout of more than 24 hours"

VARIABLES, VALUE_BYTES = 1000, 32_768
OWN_VARIABLES = 2
"""Those that we add."""

_REGISTRIES = re.compile(r"(index\.)?docker\.io|([a-z0-9-]+\.)?gcr\.io|([a-z0-9-]+-)?docker\.pkg\.dev")
_RESERVED = re.compile(r"PORT|K_(SERVICE|REVISION|CONFIGURATION)|CLOUD_RUN_.*")


def size(memory_mb: int, cpu_millis: int) -> tuple[int, int] | None:
    """The smallest size that has as much: CPUs and MiB; None when there is none."""
    for cpus, (least, most) in SIZES.items():
        if cpu_millis <= cpus * 1000 and memory_mb <= most:
            return cpus, max(memory_mb, least)
    return None


def beyond(
    image: str,
    memory_mb: int,
    cpu_millis: int,
    timeout_seconds: int,
    environment: Mapping[str, str],
    read_only_root: bool = False,
) -> Iterator[str]:
    """What such a job asks for that Cloud Run does not take, in words that continue "asks for"."""
    if not _REGISTRIES.fullmatch(registry := registry_of(image)):
        yield f"an image of {registry}, which is not docker.io, gcr.io or pkg.dev"
    if size(memory_mb, cpu_millis) is None:
        yield f"more than {max(SIZES)} cores or {SIZES[max(SIZES)][1]} MiB of memory"
    if timeout_seconds > LONGEST_TIMEOUT:
        yield f"a timeout of more than {LONGEST_TIMEOUT // 86_400} days"
    elif timeout_seconds > TIMEOUT:
        yield LONG
    if len(environment) > VARIABLES - OWN_VARIABLES:
        yield f"more than {VARIABLES - OWN_VARIABLES} environment variables"
    if any(len(value) > VALUE_BYTES // 4 and len(value.encode()) > VALUE_BYTES for value in environment.values()):
        yield f"an environment variable of more than {VALUE_BYTES} bytes"
    if reserved := sorted(filter(_RESERVED.fullmatch, environment)):
        yield f"the reserved environment variable {reserved[0]}"
    if read_only_root:
        yield "a read-only root"
