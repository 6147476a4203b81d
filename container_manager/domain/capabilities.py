"""What a job may ask for that not every host offers, as codes.

A code is `NAME`, `NAME PARAMETER` or, when only hosts of one executor type are asked for it, `TYPE/NAME…`. Codes are
stored and compared; only `describe` turns them into words. Cloud Run's limits are those of its documentation:
https://cloud.google.com/run/docs/configuring/jobs/cpu, …/memory-limits, …/task-timeout, …/environment-variables,
https://cloud.google.com/run/quotas and https://cloud.google.com/run/docs/deploying#images
"""

import re
from collections.abc import Iterator, Mapping

EVERYTHING = "*"
"""What a host grants that refuses no code."""

USER = "user"
LONG_TIMEOUT = "cloudrun/timeout-over-24h"

CLOUDRUN_SIZES = {1: (512, 4096), 2: (512, 8192), 4: (2048, 16_384), 6: (4096, 24_576), 8: (4096, 32_768)}
"""By CPUs: the least and the most memory of a task, in MiB."""

CLOUDRUN_TIMEOUT, CLOUDRUN_LONGEST_TIMEOUT = 86_400, 604_800
"""Seconds that a task may run, and that it may run in regions that allow more."""

CLOUDRUN_VARIABLES, CLOUDRUN_VALUE_BYTES = 1000, 32_768
OUR_VARIABLES = 2
"""Environment variables that an executor adds to the job's own."""

_MOST_CPUS, (_, _MOST_MEMORY) = max(CLOUDRUN_SIZES.items())
_WORDS = {
    "user": "user",
    "network": "network {}",
    "cloudrun/registry": "an image of {}, which is not docker.io, gcr.io or pkg.dev",
    "cloudrun/size": f"more than {_MOST_CPUS} cores or {_MOST_MEMORY} MiB of memory",
    "cloudrun/timeout-over-7d": f"a timeout of more than {CLOUDRUN_LONGEST_TIMEOUT // 86_400} days",
    LONG_TIMEOUT: "a timeout of more than 24 hours",
    "cloudrun/variables": f"more than {CLOUDRUN_VARIABLES - OUR_VARIABLES} environment variables",
    "cloudrun/variable-size": f"an environment variable of more than {CLOUDRUN_VALUE_BYTES} bytes",
    "cloudrun/reserved-variable": "the reserved environment variable {}",
    "cloudrun/read-only-root": "a read-only root",
}
_EARLIER = {"cloudrun: a timeout of more than 24 hours": LONG_TIMEOUT}
"""Earlier versions stored sentences; this is the only one that a host could grant."""

_REGISTRIES = re.compile(r"(index\.)?docker\.io|([a-z0-9-]+\.)?gcr\.io|([a-z0-9-]+-)?docker\.pkg\.dev")
_RESERVED = re.compile(r"PORT|K_(SERVICE|REVISION|CONFIGURATION)|CLOUD_RUN_.*")


def network(name: str) -> str:
    """The code for a network that the job names itself."""
    return f"network {name}"


def current(code: str) -> str:
    """The code of this version for one that may have been stored by an earlier version."""
    return _EARLIER.get(code, code)


def executor_type_of(code: str) -> str:
    """The only executor type whose hosts are asked for this code; "" when hosts of all types are."""
    kind, slash, _ = code.partition("/")
    if slash and " " not in kind:
        return kind
    kind, colon, _ = code.partition(": ")
    return kind if colon else ""


def describe(code: str) -> str:
    """The code in words that continue "the job asks for", without its executor type."""
    name, _, parameter = code.partition(" ")
    if name in _WORDS:
        return _WORDS[name].format(parameter)
    return code.removeprefix(f"{executor_type_of(code)}: ")


def describe_with_type(code: str) -> str:
    """The same, followed by the executor type in brackets where there is one."""
    kind = executor_type_of(code)
    return f"{describe(code)} (if on {kind})" if kind else describe(code)


def registry_of(image: str) -> str:
    """The registry in an image reference; `docker.io` when it names none."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def cloudrun_size(memory_mb: int, cpu_millis: int) -> tuple[int, int] | None:
    """The smallest Cloud Run task that has as much: (CPUs, MiB); None when there is none."""
    for cpus, (least, most) in CLOUDRUN_SIZES.items():
        if cpu_millis <= cpus * 1000 and memory_mb <= most:
            return cpus, max(memory_mb, least)
    return None


def exceeding_cloudrun(
    image: str,
    memory_mb: int,
    cpu_millis: int,
    timeout_seconds: int,
    environment: Mapping[str, str],
    *,
    read_only_root: bool = False,
) -> Iterator[str]:
    """The codes of what such a job asks for beyond the ordinary limits of Cloud Run."""
    if not _REGISTRIES.fullmatch(registry := registry_of(image)):
        yield f"cloudrun/registry {registry}"
    if cloudrun_size(memory_mb, cpu_millis) is None:
        yield "cloudrun/size"
    if timeout_seconds > CLOUDRUN_LONGEST_TIMEOUT:
        yield "cloudrun/timeout-over-7d"
    elif timeout_seconds > CLOUDRUN_TIMEOUT:
        yield LONG_TIMEOUT
    if len(environment) > CLOUDRUN_VARIABLES - OUR_VARIABLES:
        yield "cloudrun/variables"
    if any(_is_too_long(value) for value in environment.values()):
        yield "cloudrun/variable-size"
    if reserved := sorted(filter(_RESERVED.fullmatch, environment)):
        yield f"cloudrun/reserved-variable {reserved[0]}"
    if read_only_root:
        yield "cloudrun/read-only-root"


def _is_too_long(value: str) -> bool:
    # A character has at most four bytes, so most values need not be encoded.
    return len(value) > CLOUDRUN_VALUE_BYTES // 4 and len(value.encode()) > CLOUDRUN_VALUE_BYTES
