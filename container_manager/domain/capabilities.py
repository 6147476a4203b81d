"""What a job may ask for that not every host offers, as codes.

A code is `NAME` or `NAME PARAMETER`. When only hosts of one executor type are asked for it, it is `TYPE: NAME…`, as it
was in earlier versions, so that processes of both can serve one database during an upgrade. Codes are stored and
compared; only `describe` turns them into words.
"""

from collections.abc import Iterable

from container_manager.domain import cloudrun_limits as cloudrun

EVERYTHING = "*"
"""What a host grants that refuses no code."""

USER = "user"

_WORDS = {
    "user": "user",
    "network": "network {}",
    "registry": "an image of {}, which is not docker.io, gcr.io or pkg.dev",
    "size": f"more than {cloudrun.MOST_CPUS} cores or {cloudrun.MOST_MEMORY} MiB of memory",
    "timeout-over-7d": f"a timeout of more than {cloudrun.LONGEST_TIMEOUT // 86_400} days",
    "timeout-over-24h": "a timeout of more than 24 hours",
    "variables": f"more than {cloudrun.VARIABLES - cloudrun.ADDED_VARIABLES} environment variables",
    "variable-size": f"an environment variable of more than {cloudrun.VALUE_BYTES} bytes",
    "reserved-variable": "the reserved environment variable {}",
    "read-only-root": "a read-only root",
    "shm-size": "a size of /dev/shm",
}
EARLIER = {"cloudrun: a timeout of more than 24 hours": cloudrun.LONG_TIMEOUT}
"""Earlier versions stored sentences; this is the only one that a host could grant."""


def network(name: str) -> str:
    """The code for a network that the job names itself."""
    return f"network {name}"


def current(codes: Iterable[str]) -> tuple[str, ...]:
    """The codes of this version for those that may have been stored by an earlier version, each once."""
    return tuple(dict.fromkeys(EARLIER.get(code, code) for code in codes))


def executor_type_of(code: str) -> str:
    """The only executor type whose hosts are asked for this code; "" when hosts of all types are."""
    kind, colon, _ = code.partition(": ")
    return kind if colon else ""


def describe(code: str) -> str:
    """The code in words that continue "the job asks for", without its executor type."""
    code = code.removeprefix(f"{executor_type_of(code)}: ")
    name, _, parameter = code.partition(" ")
    return _WORDS[name].format(parameter) if name in _WORDS else code


def describe_with_type(code: str) -> str:
    """The same, followed by the executor type in brackets where there is one."""
    kind = executor_type_of(code)
    return f"{describe(code)} (if on {kind})" if kind else describe(code)
