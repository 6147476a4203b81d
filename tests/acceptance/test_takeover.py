"""Workers that freeze or die at any step of a launch: one container run, one verdict, nothing left."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests.client import CREATE_HOST
from tests.cloudrun import CloudRun
from tests.engines import Engine
from tests.eventually import eventually_sync
from tests.postgres import Postgres
from tests.processes import ROOT, UNMEASURED, Served, environment

STEPS = (
    "before create", "after create", "after created", "after start", "after started", "after wait", "after finished",
)  # fmt: skip
KEY = "only-for-tests-only-for-tests-only-for-tests"


class OnEngine:
    """A Docker engine, and what its containers wrote into a folder."""

    def __init__(self, engine: Engine) -> None:
        self.journal = engine.folder / "takeover"
        self.journal.mkdir(exist_ok=True)
        mounts = {"/journal": {"source": str(self.journal), "read_only": False}}
        self.host = {"executorType": "DOCKER", "config": {"url": engine.url, "mounts": mounts}}
        self.left = engine.containers

    def script(self, token: str) -> str:
        return f"echo $CONTAINER_MANAGER_ATTEMPT >> /journal/{token}; sleep 0.3; exit 7"

    def attempts(self, token: str, job_id: int) -> list[str]:
        return (self.journal / token).read_text().split()


class OnCloudRun:
    """A local Cloud Run, which knows what it has run."""

    def __init__(self, server: CloudRun) -> None:
        self.host = {"executorType": "CLOUDRUN", "config": server.config(), "maxConcurrentJobs": 50}
        # Fifteen processes look, and much oftener than they would.
        server.per_minute = dict.fromkeys(server.per_minute, 1_000_000)
        self.server, self.left = server, lambda: list(server.jobs)

    def script(self, token: str) -> str:
        return "echo here; sleep 0.3; exit 7"

    def attempts(self, token: str, job_id: int) -> list[str]:
        runs = self.server.runs_of({"container-manager-job": str(job_id)})
        return [run.labels["container-manager-attempt"] for run in runs]


class Fleet:
    """A service on PostgreSQL with one host, and workers that stop at a given step."""

    def __init__(self, folder: Path, place: OnEngine | OnCloudRun, url: str) -> None:
        self.place, self.url, self.folder = place, url, folder
        self.workers: list[subprocess.Popen[str]] = []
        self.variables = {
            "CONTAINER_MANAGER_DATABASE_URL": url, "CONTAINER_MANAGER_SECRET_KEY": KEY, **UNMEASURED,
            "CONTAINER_MANAGER_LEASE_SECONDS": "3", "CONTAINER_MANAGER_ORPHAN_GRACE_SECONDS": "1",
            "CONTAINER_MANAGER_LOG_LEVEL": "warning",
        }  # fmt: skip
        self.service = Served(folder / "service", **self.variables)
        host = self.service.query(self.service.token, CREATE_HOST, input={"name": "e", **place.host})
        assert host["health"]["status"] == "HEALTHY", host

    def worker(self, name: str) -> subprocess.Popen[str]:
        home = self.folder / name
        home.mkdir()
        variables = environment(home, DJANGO_SETTINGS_MODULE="container_manager.settings", **self.variables)
        with (home / "stderr").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.worker_process"],
                env=variables, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
            )  # fmt: skip
        self.workers.append(process)
        assert said(process) == "ready", (home / "stderr").read_text()
        return process

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait(10)
            for pipe in (worker.stdin, worker.stdout):
                with suppress(BrokenPipeError):
                    pipe.close()
        assert self.service.terminate() == 0

    def stop_at(self, worker: subprocess.Popen[str], step: str, number: int, token: str) -> tuple[int, str]:
        """Have the worker submit a job and stop there; the job's id, and what it is called."""
        # Little, so that it never waits for room and is routed by another process.
        job = {"image": "busybox:test", "cpuLimit": 0.1, "command": ["sh", "-c", self.place.script(token)]}
        worker.stdin.write(json.dumps([step, number, job]) + "\n")
        worker.stdin.flush()
        if (there := said(worker)) == "missed":
            return self.stop_at(worker, step, number, f"{token}-again")
        assert there.startswith(f"at {step}"), there
        return int(there.split()[-1]), token

    def rows(self, query: str, *parameters: object) -> list[tuple]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query, parameters).fetchall()

    def verdict(self, job_id: int) -> tuple | None:
        columns = "status, exit_code, attempt, error"
        (row,) = self.rows(f"SELECT {columns} FROM container_manager_containerjob WHERE id = %s", job_id)
        return row if row[0] in {"succeeded", "failed", "timed_out", "cancelled"} else None

    def check(self, job_id: int, token: str) -> None:
        verdict = eventually_sync(lambda: self.verdict(job_id), 60, token)
        assert verdict[:3] == ("failed", 7, 1), (token, verdict)
        assert self.place.attempts(token, job_id) == ["1"], f"{token} ran once"
        ends = self.rows(
            "SELECT 1 FROM container_manager_routingevent WHERE job_id = %s AND kind = 'job_finished'", job_id
        )
        assert len(ends) == 1, token


def said(process: subprocess.Popen[str], timeout: float = 90) -> str:
    ready, _, _ = select.select([process.stdout], [], [], timeout)
    if not ready:
        process.send_signal(signal.SIGUSR1)
        where = b""
        while select.select([process.stdout], [], [], 2)[0]:
            where += os.read(process.stdout.fileno(), 65536)
        raise AssertionError(f"worker {process.pid} says nothing. Its tasks:\n{where.decode()}")
    return process.stdout.readline().strip()


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.fixture(params=["docker", "cloudrun"])
def fleet(request: pytest.FixtureRequest, cluster: Postgres, tmp_path: Path) -> Iterator[Fleet]:
    if request.param == "docker":
        place: OnEngine | OnCloudRun = OnEngine(request.getfixturevalue("engine"))
    else:
        place = OnCloudRun(request.getfixturevalue("cloudrun"))
    started = Fleet(tmp_path, place, cluster.database())
    yield started
    started.close()


def frozen(fleet: Fleet, *steps: str) -> None:
    """One worker, at one step after the other."""
    worker = fleet.worker(f"frozen-{steps[0].replace(' ', '-')}")
    for step in steps:
        job_id, token = fleet.stop_at(worker, step, signal.SIGSTOP, f"frozen-{step.replace(' ', '-')}")
        eventually_sync(lambda job_id=job_id: fleet.verdict(job_id), 60, f"taken over: {token}")
        os.kill(worker.pid, signal.SIGCONT)
        assert said(worker) == "over", token
        fleet.check(job_id, token)
    worker.stdin.close()
    assert worker.wait(20) == 0, steps


def killed(fleet: Fleet, step: str) -> None:
    worker = fleet.worker(name := f"killed-{step.replace(' ', '-')}")
    job_id, token = fleet.stop_at(worker, step, signal.SIGKILL, name)
    worker.wait(10)
    fleet.check(job_id, token)


def test_a_worker_may_stop_at_any_step_and_one_container_runs_once(fleet: Fleet) -> None:
    with ThreadPoolExecutor(5) as pool:
        freezing = [pool.submit(frozen, fleet, *STEPS[begin::2]) for begin in range(2)]
        for done in [*freezing, *(pool.submit(killed, fleet, step) for step in STEPS)]:
            done.result()
    eventually_sync(lambda: fleet.place.left() == [], 15, "nothing is left")


@pytest.mark.parametrize("fleet", ["cloudrun"], indirect=True)
@pytest.mark.parametrize("method", ["CreateJob", "RunJob"])
def test_a_call_that_arrives_after_its_sender_is_gone_starts_nothing(fleet: Fleet, method: str) -> None:
    server = fleet.place.server
    worker = fleet.worker("late")
    step = {"CreateJob": "before create", "RunJob": "before start"}[method]
    job_id, _ = fleet.stop_at(worker, step, signal.SIGSTOP, "late")
    eventually_sync(lambda: stopped(worker.pid), 10, "it is frozen")
    with server.hang(method, times=1) as held:
        os.kill(worker.pid, signal.SIGCONT)
        eventually_sync(held.is_set, 10, "the call has arrived")
        worker.kill()
        worker.wait(10)
        fleet.check(job_id, "late")
    eventually_sync(lambda: server.calls[method] == 2, 10, "it was answered at last")
    eventually_sync(lambda: fleet.place.left() == [], 15, "nothing is left")
    fleet.check(job_id, "late")
