"""What Cloud Run offers to a job, and which capabilities a job needs that exceeds it.

The limits are those of its documentation: https://cloud.google.com/run/docs/configuring/jobs/cpu, …/memory-limits,
…/task-timeout, …/environment-variables, https://cloud.google.com/run/quotas and
https://cloud.google.com/run/docs/deploying#images
"""

import re
from collections.abc import Iterator, Mapping

from container_manager.domain.image import registry_of

SIZES = {1: (512, 4096), 2: (512, 8192), 4: (2048, 16_384), 6: (4096, 24_576), 8: (4096, 32_768)}
"""By CPUs: the least and the most memory of a task, in MiB."""

MOST_CPUS, (_, MOST_MEMORY) = max(SIZES.items())

TIMEOUT, LONGEST_TIMEOUT = 86_400, 604_800
"""Seconds that a task may run, and that it may run in regions that allow more."""

VARIABLES, VALUE_BYTES = 1000, 32_768
ADDED_VARIABLES = 2
"""Environment variables that an executor adds to the job's own."""

LONG_TIMEOUT = "cloudrun: timeout-over-24h"
"""The capability of regions that allow more than `TIMEOUT`."""

_REGISTRIES = re.compile(r"(index\.)?docker\.io|([a-z0-9-]+\.)?gcr\.io|([a-z0-9-]+-)?docker\.pkg\.dev")
_RESERVED = re.compile(r"PORT|K_(SERVICE|REVISION|CONFIGURATION)|CLOUD_RUN_.*")


def task_size(memory_mb: int, cpu_millis: int) -> tuple[int, int] | None:
    """The smallest Cloud Run task that has as much: (CPUs, MiB); None when there is none."""
    for cpus, (least, most) in SIZES.items():
        if cpu_millis <= cpus * 1000 and memory_mb <= most:
            return cpus, max(memory_mb, least)
    return None


def exceeding(
    image: str,
    memory_mb: int,
    cpu_millis: int,
    timeout_seconds: int,
    environment: Mapping[str, str],
    *,
    read_only_root: bool = False,
    shm_size: bool = False,
) -> Iterator[str]:
    """The codes of what such a job asks for beyond the ordinary limits of Cloud Run."""
    if not _REGISTRIES.fullmatch(registry := registry_of(image)):
        yield f"cloudrun: registry {registry}"
    if task_size(memory_mb, cpu_millis) is None:
        yield "cloudrun: size"
    if timeout_seconds > LONGEST_TIMEOUT:
        yield "cloudrun: timeout-over-7d"
    elif timeout_seconds > TIMEOUT:
        yield LONG_TIMEOUT
    if len(environment) > VARIABLES - ADDED_VARIABLES:
        yield "cloudrun: variables"
    if any(_is_too_long(value) for value in environment.values()):
        yield "cloudrun: variable-size"
    if reserved := sorted(filter(_RESERVED.fullmatch, environment)):
        yield f"cloudrun: reserved-variable {reserved[0]}"
    if read_only_root:
        yield "cloudrun: read-only-root"
    if shm_size:
        yield "cloudrun: shm-size"


def _is_too_long(value: str) -> bool:
    # A character has at most four bytes, so most values need not be encoded.
    return len(value) > VALUE_BYTES // 4 and len(value.encode()) > VALUE_BYTES
