"""What differs between the engines that speak Docker's API."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

MEBIBYTE = 1024 * 1024


class Dialect(NamedTuple):
    """One kind of engine.

    `ends_containers`: containers end with the engine, unless it is configured otherwise.
    `command_failed`, `init_error`: how the init process of a container says that it cannot run the command.
    `log_file`, `log_files`: how output is kept: so many files of so many bytes; then the oldest is dropped.
    `has_id`: its id is the same in each of its answers.
    `needs_mounts_checked`: the engine creates a missing source of a bind mount instead of refusing it.
    """

    name: str
    ends_containers: bool
    command_failed: frozenset[int]
    init_error: re.Pattern[str]
    log_file: int
    log_files: int
    has_id: bool
    needs_mounts_checked: bool

    @property
    def most_without_loss(self) -> int:
        """How many bytes of output may be stored before the oldest may have been dropped, a fifth less to be safe."""
        return (self.log_files - 1) * self.log_file * 4 // 5 or self.log_file * self.log_files

    def history(self, now: float, container_id: str) -> dict[str, Any]:
        """The parameters with which the engine tells what it remembers, and then closes the stream."""
        if self is DOCKER:
            return {"since": 1, "until": f"{now:.6f}"}
        # Podman remembers all events, and leaves out most when it is asked for those until a time (podman#29579).
        return {"since": 1, "stream": "false", "filters": json.dumps({"container": [container_id]})}


DOCKER = Dialect(
    name="Docker",
    ends_containers=True,
    command_failed=frozenset({126, 127}),
    init_error=re.compile(r"\[FATAL tini[^\]]*\] (.*)"),
    log_file=32 * MEBIBYTE,
    log_files=3,
    has_id=True,
    needs_mounts_checked=False,
)
PODMAN = Dialect(
    name="Podman",
    # Each container has a process of its own that waits for it, conmon.
    ends_containers=False,
    command_failed=frozenset({1, 126, 127}),
    init_error=re.compile(r"ERROR \(catatonit:\d+\): (.*)"),
    log_file=96 * MEBIBYTE,
    log_files=1,
    has_id=False,
    needs_mounts_checked=True,
)


def of_ping(headers: Mapping[str, str]) -> Dialect:
    """The engine that has answered a ping with these headers."""
    return PODMAN if "Libpod-Api-Version" in headers else DOCKER
