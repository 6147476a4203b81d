"""Why a container ended, judged from the events that its engine told."""

import json
import math
import signal
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

from container_manager.executors.base import ExecutionState, ExecutionStatus

CREATE, START, KILL, STOP, OOM = "create", "start", "kill", "stop", "oom"
ENDS = frozenset({"die", "died"})
"""The end of a container, as Docker calls it and as Podman does."""

WATCHED = [*sorted(ENDS), KILL, STOP, OOM]
"""The events that an executor listens to."""

ENDING_SIGNALS = frozenset({signal.SIGINT, signal.SIGKILL, signal.SIGTERM})
"""Signals that ask a program to end. A program may catch them and then end with any exit code."""

TIME_TO_END = 60.0
"""Seconds within which an end counts as the effect of such a signal; a program that ignores it ends later."""

FIRST_SIGNAL_CODE = 128
"""A program that is ended by signal N has the exit code 128 + N."""

SHORTEST_RESTART = 0.5
"""Seconds that an engine needs at least to end its containers, to stop and to answer again (measured: 1.5 s)."""

MARK = "update"
"""An event that is caused to prove that an engine's history can be read."""

STARTED_AGAIN = "Its container was started again on its host, and not by this service."

MOST_CONTAINERS, MOST_EVENTS = 10_000, 20
"""Containers whose events are kept, and the newest events of each."""


class ContainerEvent(NamedTuple):
    """An event of one container. `at` is in seconds; `signal` belongs to a `kill`, `exit_code` to an end."""

    container: str
    action: str
    at: float
    signal: int = 0
    exit_code: int | None = None


def read_event(line: bytes) -> ContainerEvent | None:
    """One line of an engine's events; None when it is not about a container.

    Raises:
        ValueError: it is not an event.
    """
    event = json.loads(line)
    try:
        if event.get("Type", "container") != "container":
            return None
        actor = event["Actor"]
        attributes = actor.get("Attributes") or {}
        at = int(event.get("timeNano") or 0) / 1e9 or float(event["time"])
        signal_number, exit_code = (_number(attributes.get(name)) for name in ("signal", "exitCode"))
        return ContainerEvent(actor["ID"], event["Action"], at, signal_number or 0, exit_code)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an event: {line[:200]!r}") from error


def _number(text: object) -> int | None:
    return int(text) if isinstance(text, str) and text.isdecimal() else None


@dataclass(slots=True)
class _Seen:
    """What was seen of one container. `told_at`: when the engine told of its end, on the monotonic clock."""

    events: list[ContainerEvent] = field(default_factory=list)
    started_at: datetime | None = None
    told_at: float = -math.inf
    while_closing: bool = False


class SeenEnds:
    """What an executor has seen of its containers' ends. The containers that it saw first are forgotten first."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def _of(self, container_id: str) -> _Seen:
        seen = self._seen.setdefault(container_id, _Seen())
        if len(self._seen) > MOST_CONTAINERS:
            self._seen.popitem(last=False)
        return seen

    def add(self, event: ContainerEvent) -> None:
        """Keep an event that the engine has just told."""
        seen = self._of(event.container)
        seen.events.append(event)
        del seen.events[:-MOST_EVENTS]
        if event.action in ENDS:
            seen.told_at = time.monotonic()

    def add_past(self, event: ContainerEvent) -> None:
        """Keep an event that the engine remembers, if it is one of those that are listened to."""
        events = self._of(event.container).events
        if event.action in WATCHED and event not in events:
            events.append(event)
            events.sort(key=lambda known: known.at)
            del events[:-MOST_EVENTS]

    def events(self, container_id: str) -> Sequence[ContainerEvent]:
        """The events of a container, oldest first."""
        return self._of(container_id).events

    def is_fresh(self, container_id: str) -> bool:
        """Whether the engine told of this end so recently that it cannot have been started again since."""
        return time.monotonic() - self._of(container_id).told_at < SHORTEST_RESTART

    def engine_was_closing(self, container_id: str) -> bool:
        """Whether the engine accepted no connection when the end of this container became known."""
        return self._of(container_id).while_closing

    def note_closing(self, container_id: str) -> None:
        """The engine accepts no connection, and this container has ended."""
        self._of(container_id).while_closing = True

    def forget(self, container_id: str) -> None:
        """Drop what was seen of a container."""
        self._seen.pop(container_id, None)

    def first_run(self, status: ExecutionStatus) -> ExecutionStatus:
        """The status of the container's first run. A person may have started it again, which is not the job's doing."""
        if status.started_at is None:
            return status
        seen = self._of(status.id)
        seen.started_at = seen.started_at or status.started_at
        end = next((event for event in seen.events if event.action in ENDS), None)
        is_over = end is not None and end.at < status.started_at.timestamp()
        if seen.started_at == status.started_at and not is_over:
            return status
        ended_at = None if end is None else datetime.fromtimestamp(end.at, UTC)
        return ExecutionStatus(
            status.id,
            ExecutionState.EXITED,
            exit_code=end.exit_code if end else None,
            started_at=min(seen.started_at, ended_at or seen.started_at),
            finished_at=ended_at,
            error="" if end else STARTED_AGAIN,
            runs_again=status.state is ExecutionState.RUNNING,
        )


class History(NamedTuple):
    """The events that an engine remembers, oldest first.

    `is_full`: older events may have been dropped. `survives_restarts`: containers outlive the engine's restart.
    """

    events: Sequence[ContainerEvent]
    is_full: bool
    survives_restarts: bool

    def of(self, container_id: str) -> list[ContainerEvent]:
        """The events of one container."""
        return [event for event in self.events if event.container == container_id]


def has(events: Iterable[ContainerEvent], *actions: str) -> bool:
    """Whether one of the events has one of these actions."""
    return any(event.action in actions for event in events)


def ending_signal(status: ExecutionStatus, events: Sequence[ContainerEvent]) -> int:
    """The number of the signal that was sent through the engine and ended the container; 0 when there was none.

    Podman does not tell which signal was sent, so there only the exit code tells whether it ended the container.
    """
    by_code = (status.exit_code or 0) - FIRST_SIGNAL_CODE
    ended_at = next((event.at for event in reversed(events) if event.action in ENDS), None)
    for event in reversed(events):
        if event.action != KILL:
            continue
        if by_code in SIGNAL_NUMBERS and event.signal in {0, by_code}:
            return by_code
        if event.signal in ENDING_SIGNALS and (ended_at is None or ended_at - event.at <= TIME_TO_END):
            return event.signal
    return 0


def explain_end(status: ExecutionStatus, events: Sequence[ContainerEvent]) -> ExecutionStatus:
    """The status with what the container's events say about its end, if it was not the program's own."""
    sent = ending_signal(status, events)
    if sent or has(events, STOP):
        # A stop through the engine is reported when the container has ended, whatever its signal and its exit code are.
        with_signal = "" if sent in {0, signal.SIGKILL} else f" with {name_of(sent)}"
        return replace(status, error=f"It was killed on its host{with_signal}, and not by this service.")
    if status.out_of_memory or has(events, OOM):
        # Reported after the end, it is missing in the container's state.
        return replace(status, out_of_memory=True)
    number = (status.exit_code or 0) - FIRST_SIGNAL_CODE
    if number in SIGNAL_NUMBERS and not status.error:
        why = f"Exit code {status.exit_code} stands for {name_of(number)}, which this service has not sent."
        if number == signal.SIGKILL:
            why += " A program that needs more memory than it may have can end like this."
        return replace(status, error=why)
    return status


def ended_by_restart(host_name: str, status: ExecutionStatus) -> ExecutionStatus:
    """The status of a container that its engine has ended with itself."""
    why = f"The engine of host {host_name} was restarted, which ended the container."
    return replace(status, interrupted=True, error=why)


SIGNAL_NUMBERS = frozenset(int(number) for number in signal.valid_signals())


def name_of(number: int) -> str:
    """The name of a signal, such as SIGTERM."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
