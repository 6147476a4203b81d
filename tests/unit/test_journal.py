"""What the log says about commits."""

import logging

import pytest

from container_manager.domain.kinds import EventKind
from container_manager.store import journal
from container_manager.store.transaction import NewEvent


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger=journal.__name__)
    return caplog


def test_the_life_of_a_job_is_told_with_its_fields(log: pytest.LogCaptureFixture) -> None:
    journal.tell(
        [
            NewEvent(EventKind.JOB_SUBMITTED, "x with image y.", 7, attempt=1, actor="me"),
            NewEvent(EventKind.JOB_ROUTED, "told where it is decided", 7, 1, "h", attempt=1),
            NewEvent(EventKind.JOB_LAUNCHED, "Attempt 1 has a container.", 7, 1, "h", attempt=1),
            NewEvent(EventKind.JOB_FINISHED, "FAILED, exit code 3", 7, 1, "h", attempt=1),
        ]
    )
    assert [record.getMessage() for record in log.records] == [
        "job_submitted: x with image y.", "job_launched: Attempt 1 has a container.", "job_finished: FAILED, exit code 3",
    ]  # fmt: skip
    last = log.records[-1]
    assert (last.job, last.attempt, last.host, last.levelname) == (7, 1, "h", "INFO")
    assert log.records[0].actor == "me"


@pytest.mark.parametrize(
    ("kind", "message", "level"),
    [
        (EventKind.HOST_HEALTH_CHANGED, "healthy to unhealthy. It does not answer.", "WARNING"),
        (EventKind.HOST_HEALTH_CHANGED, "unhealthy to healthy.", "INFO"),
        (EventKind.HOST_EJECTED, "x", "WARNING"),
        (EventKind.HOST_DRAINED, "x", "INFO"),
    ],
)
def test_what_a_person_should_look_at_is_a_warning(
    log: pytest.LogCaptureFixture, kind: EventKind, message: str, level: str
) -> None:
    journal.tell([NewEvent(kind, message, host_id=1, host_name="h")])
    assert [record.levelname for record in log.records] == [level]


def test_of_large_commits_only_failures_are_told_one_by_one(log: pytest.LogCaptureFixture) -> None:
    many = [NewEvent(EventKind.JOB_FINISHED, "SUCCEEDED, exit code 0", number) for number in range(100)]
    journal.tell([*many, NewEvent(EventKind.JOB_FINISHED, "FAILED, exit code 1", 100)])
    assert [record.getMessage() for record in log.records] == ["job_finished: FAILED, exit code 1", "101 job_finished"]
