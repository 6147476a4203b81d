"""Why a container ended, as a table of what was seen."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from container_manager.executors.base import ExecutionState, ExecutionStatus
from container_manager.executors.docker import ends
from container_manager.executors.docker.ends import (
    STARTED_AGAIN,
    ContainerEvent,
    SeenEnds,
    ended_by_restart,
    explain_end,
    read_event,
)

BEGAN = datetime(2026, 11, 28, 10, tzinfo=UTC)
AT = BEGAN.timestamp()


def exited(code: int | None, **more: object) -> ExecutionStatus:
    ended_at = BEGAN + timedelta(seconds=9)
    return ExecutionStatus("a", ExecutionState.EXITED, code, started_at=BEGAN, finished_at=ended_at, **more)


def told(action: str, after: float = 9, **more: int) -> ContainerEvent:
    return ContainerEvent("a", action, AT + after, **more)


KILLED = "It was killed on its host{}, and not by this service."


@pytest.mark.parametrize(
    ("code", "events", "error"),
    [
        # An end of its own, whatever the exit code is.
        (0, [told("die")], ""),
        (3, [told("die")], ""),
        (255, [told("die")], ""),
        (129 + 200, [told("die")], ""),
        # A signal through the engine, whatever the program made of it.
        (137, [told("kill", signal=9), told("die")], KILLED.format("")),
        (143, [told("kill", signal=15), told("die")], KILLED.format(" with SIGTERM")),
        (130, [told("kill", signal=2), told("die")], KILLED.format(" with SIGINT")),
        (0, [told("kill", signal=15), told("die")], KILLED.format(" with SIGTERM")),
        (3, [told("kill", signal=15), told("die")], KILLED.format(" with SIGTERM")),
        (3, [told("kill", signal=2), told("died")], KILLED.format(" with SIGINT")),
        (138, [told("kill", signal=10), told("die")], KILLED.format(" with SIGUSR1")),
        # A stop through the engine, by whatever signal the image names and however long the program took.
        (0, [told("kill", signal=28), told("die"), told("stop")], KILLED.format("")),
        (0, [told("kill", after=9, signal=15), told("die", after=100), told("stop", after=100)], KILLED.format("")),
        (3, [told("die"), told("stop")], KILLED.format("")),
        # The dump of a virtual machine's threads.
        (0, [told("kill", signal=3), told("die")], ""),
        # A child had needed too much memory before.
        (0, [told("oom", 1), told("kill", signal=15), told("die"), told("stop")], KILLED.format(" with SIGTERM")),
        (163, [told("kill", signal=35), told("die")], KILLED.format(" with signal 35")),
        # Podman does not tell which signal it was.
        (137, [told("kill"), told("died")], KILLED.format("")),
        (143, [told("kill"), told("died")], KILLED.format(" with SIGTERM")),
        (0, [told("kill"), told("died")], ""),
        (3, [told("kill"), told("died")], ""),
        # The engine told of the signal after the end.
        (137, [told("die"), told("kill", signal=9)], KILLED.format("")),
        # Signals that do not ask a program to end, or that it has ignored for long.
        (0, [told("kill", signal=1), told("die")], ""),
        (0, [told("kill", signal=10), told("die")], ""),
        (0, [told("kill", after=9, signal=15), told("die", after=100)], ""),
    ],
)
def test_an_end_is_told_apart_by_the_signals_that_were_seen(
    code: int, events: list[ContainerEvent], error: str
) -> None:
    assert explain_end(exited(code), events) == exited(code, error=error)


@pytest.mark.parametrize(("code", "name"), [(137, "SIGKILL"), (139, "SIGSEGV"), (130, "SIGINT"), (134, "SIGABRT")])
def test_an_end_by_a_signal_of_which_nothing_was_seen_says_so(code: int, name: str) -> None:
    error = explain_end(exited(code), [told("die")]).error
    assert error.startswith(f"Exit code {code} stands for {name}, which this service has not sent.")
    assert explain_end(exited(code, error="known"), [told("die")]).error == "known"


@pytest.mark.parametrize("code", [137, 1])
def test_memory_that_ran_out_is_the_cause(code: int) -> None:
    assert explain_end(exited(code), [told("oom"), told("die")]) == exited(code, out_of_memory=True)


def test_an_engine_that_was_restarted_has_interrupted_its_containers() -> None:
    status = ended_by_restart("here", exited(0))
    assert status.interrupted
    assert status.error == "The engine of host here was restarted, which ended the container."


# ------------------------------------------------------------------ the first run of a container


def seen(*events: ContainerEvent) -> SeenEnds:
    known = SeenEnds()
    for event in events:
        known.add(event)
    return known


RUNNING = ExecutionStatus("a", ExecutionState.RUNNING, started_at=BEGAN)


def test_a_container_that_runs_is_what_it_was() -> None:
    known = seen()
    assert known.first_run(RUNNING) == known.first_run(RUNNING) == RUNNING
    assert known.first_run(exited(3)) == exited(3)
    assert known.first_run(replace(RUNNING, started_at=None)).state is ExecutionState.RUNNING


@pytest.mark.parametrize("state", [ExecutionState.RUNNING, ExecutionState.EXITED])
def test_a_container_that_was_started_again_by_hand_has_ended_with_its_first_run(state: ExecutionState) -> None:
    again = ExecutionStatus("a", state, started_at=BEGAN + timedelta(seconds=10))
    known = seen(told("die", exit_code=3))
    # When the first run has started is not known here, so that it counts as having started when it ended.
    runs_again = state is ExecutionState.RUNNING
    expected = replace(exited(3), started_at=exited(3).finished_at, runs_again=runs_again)
    assert known.first_run(again) == expected

    known = seen()
    known.first_run(RUNNING)
    status = known.first_run(again)
    assert (status.state, status.exit_code, status.error) == (ExecutionState.EXITED, None, STARTED_AGAIN)


def test_what_is_seen_is_bounded_and_can_be_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "MOST_CONTAINERS", 2)
    known = seen(*(told("exec_start", after=second) for second in range(100)), told("die", after=100))
    assert [event.at - AT for event in known.events("a")] == list(range(81, 101))
    assert known.is_fresh("a")
    known.note_closing("a")
    assert known.engine_was_closing("a")
    known.forget("a")
    assert (list(known.events("a")), known.is_fresh("a"), known.engine_was_closing("a")) == ([], False, False)
    for container in "abc":
        known.add(ContainerEvent(container, "die", AT))
    assert (list(known.events("a")), len(known.events("c"))) == ([], 1)


# ------------------------------------------------------------------ events as an engine writes them


def line(**changes: object) -> bytes:
    actor = {"ID": "a", "Attributes": {"exitCode": "3", "image": "x"}}
    return json.dumps({"Type": "container", "Action": "die", "Actor": actor, "time": 5, **changes}).encode()


def test_events_are_read_as_engines_write_them() -> None:
    assert read_event(line()) == ContainerEvent("a", "die", 5.0, exit_code=3)
    assert read_event(line(timeNano=5_250_000_000)) == ContainerEvent("a", "die", 5.25, exit_code=3)
    kill = {"ID": "a", "Attributes": {"signal": "15"}}
    assert read_event(line(Action="kill", Actor=kill)) == ContainerEvent("a", "kill", 5.0, signal=15)
    assert read_event(line(Actor={"ID": "a", "Attributes": None})) == ContainerEvent("a", "die", 5.0)
    assert read_event(line(Type="network")) is None


@pytest.mark.parametrize("text", [b"<html>", b"[]", b"{}", b'{"Actor": []}', line(Actor=None), line(time=None)])
def test_what_is_not_an_event_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an event|Expecting value"):
        read_event(text)
