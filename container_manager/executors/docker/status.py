"""What an engine's answers say about a container: its state, and the history of its events."""

import hashlib
import logging
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiodocker.containers import DockerContainer
from pydantic import BaseModel, Field

from container_manager.executors.base import LABEL, ExecutionState, ExecutionStatus, OwnedExecution
from container_manager.executors.exceptions import clean

logger = logging.getLogger(__name__)

STATES = {
    **dict.fromkeys(["created", "configured", "initialized"], ExecutionState.CREATED),
    **dict.fromkeys(["running", "paused", "restarting", "stopping", "removing"], ExecutionState.RUNNING),
    # Podman calls a container stopped until it has cleaned up; its exit code is known by then.
    **dict.fromkeys(["exited", "stopped", "dead"], ExecutionState.EXITED),
}
"""By what Docker and Podman call the states of containers."""


def state_of(name: str) -> ExecutionState:
    """The state that an engine calls so.

    Raises:
        ValueError: it is none that is known.
    """
    if name not in STATES:
        raise ValueError(f"the engine reports a container's state as {name!r}, which is not known")
    return STATES[name]


class ContainerState(BaseModel):
    """What is read of the `State` of an inspected container, as the engine names it."""

    Status: str
    ExitCode: int = Field(ge=-(2**31), le=2**31 - 1)
    StartedAt: str
    FinishedAt: str
    OOMKilled: bool = False
    Error: str | None = ""


def status_of_container(container_id: str, answer: Mapping[str, Any]) -> ExecutionStatus:
    """The status in the `State` of an inspected container.

    Raises:
        ValueError: it is not the state of a container.
    """
    state = ContainerState.model_validate(answer)
    kind, finished_at = state_of(state.Status), _time(state.FinishedAt)
    if kind is ExecutionState.CREATED and finished_at:
        # A container that has ended is called "created" by an engine that does not know when it started.
        kind = ExecutionState.EXITED
    return ExecutionStatus(
        container_id,
        kind,
        exit_code=state.ExitCode if kind is ExecutionState.EXITED else None,
        started_at=_time(state.StartedAt),
        finished_at=finished_at if kind is ExecutionState.EXITED else None,
        out_of_memory=state.OOMKilled,
        error=clean(state.Error or ""),
    )


def owned_execution(container: DockerContainer) -> OwnedExecution | None:
    """A listed container with the labels of this service; None when they are incomplete."""
    try:
        labels = container["Labels"]
        job, attempt = (int(labels[f"{LABEL}.{name}"]) for name in ("job", "attempt"))
        return OwnedExecution(container.id, job, attempt, state_of(container["State"]))
    except (LookupError, TypeError, ValueError):
        logger.warning("container %s has the label of this service but no valid job, attempt and state", container.id)
        return None


class EngineInfo(BaseModel):
    """What is read of an engine's /info, as the engine names it. Memory in bytes."""

    MemTotal: int = Field(ge=0, le=2**50)
    NCPU: int = Field(ge=0, le=100_000)
    ServerVersion: str = ""
    ID: str = ""
    Name: str = ""
    DockerRootDir: str = ""


def engine_id(info: EngineInfo, *, has_id: bool) -> str:
    """What tells engines apart, from an engine's /info: its own id, its machine and the folder of its data.

    The id alone does not: older versions of Docker keep one for all engines of a machine.
    """
    parts = (info.ID if has_id else "", info.Name, info.DockerRootDir)
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest() if parts[2] else ""


def parse_time(text: str) -> datetime:
    """A time as the engine writes it, with up to nanoseconds; Python reads at most microseconds."""
    found = datetime.fromisoformat(re.sub(r"\.(\d{6})\d*", r".\1", text))
    if found.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return found


def _time(text: str) -> datetime | None:
    return None if text.startswith("0001-") else parse_time(text)
