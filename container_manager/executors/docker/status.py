"""What an engine's answers say about a container: its state, and the history of its events."""

import logging
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiodocker.containers import DockerContainer

from container_manager.executors.base import LABEL, ExecutionState, ExecutionStatus, OwnedExecution

logger = logging.getLogger(__name__)

STATES = {"created": ExecutionState.CREATED, "exited": ExecutionState.EXITED, "dead": ExecutionState.EXITED}


def status_of_container(container_id: str, state: Mapping[str, Any]) -> ExecutionStatus:
    """The status in the `State` of an inspected container."""
    kind = STATES.get(state["Status"], ExecutionState.RUNNING)
    if kind is ExecutionState.CREATED and _time(state["FinishedAt"]):
        # A container that has ended is called "created" by an engine that does not know when it started.
        kind = ExecutionState.EXITED
    return ExecutionStatus(
        container_id,
        kind,
        exit_code=state["ExitCode"] if kind is ExecutionState.EXITED else None,
        started_at=_time(state["StartedAt"]),
        finished_at=_time(state["FinishedAt"]) if kind is ExecutionState.EXITED else None,
        out_of_memory=bool(state.get("OOMKilled")),
        error=state.get("Error", ""),
    )


def owned_execution(container: DockerContainer) -> OwnedExecution | None:
    """A listed container with the labels of this service; None when they are incomplete."""
    labels, state = container["Labels"], STATES.get(container["State"], ExecutionState.RUNNING)
    try:
        return OwnedExecution(container.id, int(labels[f"{LABEL}.job"]), int(labels[f"{LABEL}.attempt"]), state)
    except (KeyError, ValueError):
        logger.warning("container %s has the label of this service but no valid job and attempt", container.id)
        return None


def parse_time(text: str) -> datetime:
    """A time as the engine writes it, with up to nanoseconds; Python reads at most microseconds."""
    return datetime.fromisoformat(re.sub(r"\.(\d{6})\d*", r".\1", text))


def _time(text: str) -> datetime | None:
    return None if text.startswith("0001-") else parse_time(text)
