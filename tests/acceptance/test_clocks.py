"""Clocks that are set while the service runs, or differ from the engine's, change no verdict and no order."""

import time
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from tests.client import CREATE_HOST, SUBMIT
from tests.engines import Engine
from tests.eventually import eventually_sync
from tests.processes import UNMEASURED, Served

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
JOB = """query($id: ID!) { job(id: $id) { status exitCode error attempt submittedAt startedAt finishedAt notBefore
    waitingOn { message } } }"""
ENDED = {"SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELLED"}
HOUR = 3600


class Machine:
    """A service whose machine's clock can be set."""

    def __init__(self, home: Path, ahead: int) -> None:
        self._offset = home / "offset"
        self._write(ahead)
        self.served = Served(
            home / "service",
            LD_PRELOAD=str(LIBRARIES[0]), FAKETIME_TIMESTAMP_FILE=str(self._offset), FAKETIME_CACHE_DURATION="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1", **UNMEASURED,
        )  # fmt: skip

    def _write(self, ahead: int) -> None:
        self._offset.write_text(f"{ahead:+d}s")

    def set(self, ahead: int) -> None:
        """Set the clock so many seconds ahead of ours."""
        self._write(ahead)
        eventually_sync(lambda: abs(self._ahead() - ahead) < 60, 10, "the clock is set")

    def _ahead(self) -> float:
        told = httpx.get(f"{self.served.url}/livez").headers["date"]
        return parsedate_to_datetime(told).timestamp() - time.time()

    def query(self, query: str, **variables: object) -> dict:
        return self.served.query(self.served.token, query, **variables)

    def submit(self, script: str, **wishes: object) -> str:
        wanted = {"image": "busybox:test", "command": ["sh", "-c", script], **wishes}
        return self.query(SUBMIT, input=wanted)["id"]

    def job(self, job_id: str) -> dict:
        return self.query(JOB, id=job_id)

    def until(self, job_id: str, *statuses: str, timeout: float = 30) -> dict:
        return eventually_sync(
            lambda: found if (found := self.job(job_id))["status"] in statuses else None, timeout, str(statuses)
        )


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path, engine: Engine) -> Iterator[Machine]:
    """A machine with the engine; its clock begins so many seconds ahead as the test's parameter says."""
    if not LIBRARIES:
        pytest.skip("Setting the clock of one process needs libfaketime (Debian: faketime).")
    started = Machine(tmp_path, getattr(request, "param", 0))
    host = {"name": "e", "executorType": "DOCKER", "config": {"url": engine.url}, "maxConcurrentJobs": 3}
    with started.served:
        assert started.query(CREATE_HOST, input=host)["health"]["status"] == "HEALTHY"
        yield started


def order(job: dict) -> list[datetime]:
    return [datetime.fromisoformat(job[name]) for name in ("submittedAt", "startedAt", "finishedAt")]


@pytest.mark.parametrize("step", [2 * HOUR, -HOUR])
def test_a_clock_that_is_set_ends_no_job_and_keeps_none(machine: Machine, step: int) -> None:
    long = machine.submit("sleep 8; exit 5", timeoutSeconds=HOUR)
    short = machine.submit("sleep 60", timeoutSeconds=8)
    nowhere = {"hostSelector": {"no": "such host"}}
    waiting = machine.submit("true", queueTimeoutSeconds=HOUR, **nowhere)
    for job_id in (long, short):
        machine.until(job_id, "RUNNING")
    retried = machine.submit("exit $((CONTAINER_MANAGER_ATTEMPT - 4))", maxAttempts=4)
    eventually_sync(lambda: machine.job(retried)["attempt"] == 3, 30, "its back-off is 2 s")
    machine.set(step)
    began = time.monotonic()
    late = machine.submit("true", queueTimeoutSeconds=2, **nowhere)
    job = machine.until(late, *ENDED)
    assert (job["status"], "queueTimeoutSeconds of 2" in job["error"]) == ("FAILED", True), job
    job = machine.until(long, *ENDED)
    assert (job["status"], job["exitCode"]) == ("FAILED", 5)
    assert order(job) == sorted(order(job))
    assert 7 < (order(job)[2] - order(job)[1]).total_seconds() < 14
    job = machine.until(short, *ENDED)
    assert job["status"] == "TIMED_OUT"
    assert machine.until(retried, *ENDED)["status"] == "SUCCEEDED"
    assert time.monotonic() - began < 20
    assert machine.job(waiting)["status"] == "PENDING"


@pytest.mark.parametrize("machine", [HOUR, -HOUR], indirect=True)
def test_a_clock_that_differs_from_the_engines_changes_no_order(machine: Machine) -> None:
    job_id = machine.submit("sleep 2; exit 5")
    running = machine.until(job_id, "RUNNING")
    job = machine.until(job_id, *ENDED)
    assert (job["status"], job["exitCode"]) == ("FAILED", 5)
    assert order(job) == sorted(order(job))
    assert job["startedAt"] == running["startedAt"]
    assert 1 < (order(job)[2] - order(job)[1]).total_seconds() < 5
