"""Workers that freeze or die at any step of a launch: one container run, one verdict, nothing left."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.client import CREATE_HOST
from tests.engines import Engine
from tests.postgres import Postgres
from tests.processes import ROOT, Served, environment
from tests.waiting import eventually_sync

STEPS = (
    "before create", "after create", "after created", "after start", "after started", "after wait", "after finished",
)  # fmt: skip
KEY = "only-for-tests-only-for-tests-only-for-tests"


class Fleet:
    """A service on PostgreSQL with one engine, and workers beside it that are told where to stop."""

    def __init__(self, folder: Path, engine: Engine, url: str) -> None:
        self.engine, self.url, self.folder = engine, url, folder
        self.journal = engine.folder / "takeover"
        self.journal.mkdir(exist_ok=True)
        self.variables = {
            "CONTAINER_MANAGER_DATABASE_URL": url, "CONTAINER_MANAGER_SECRET_KEY": KEY,
            "CONTAINER_MANAGER_LEASE_SECONDS": "3", "CONTAINER_MANAGER_ORPHAN_GRACE_SECONDS": "1",
            "CONTAINER_MANAGER_LOG_LEVEL": "warning",
        }  # fmt: skip
        self.service = Served(folder / "service", **self.variables)
        mounts = {"/journal": {"source": str(self.journal), "read_only": False}}
        config = {"url": engine.url, "mounts": mounts}
        host = self.service.query(
            self.service.token, CREATE_HOST, input={"name": "e", "executorType": "DOCKER", "config": config}
        )
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
        assert said(process) == "ready", (home / "stderr").read_text()
        return process

    def stop_at(self, worker: subprocess.Popen[str], step: str, number: int, token: str) -> int:
        """Have the worker submit a job and stop there; the job's id."""
        script = f"echo $CONTAINER_MANAGER_ATTEMPT >> /journal/{token}; sleep 0.3; exit 7"
        job = {"image": "busybox:test", "command": ["sh", "-c", script]}
        worker.stdin.write(json.dumps([step, number, job]) + "\n")
        worker.stdin.flush()
        there = said(worker)
        assert there.startswith(f"at {step}"), there
        return int(there.split()[-1])

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
        assert (self.journal / token).read_text().split() == ["1"], f"{token} ran once"
        ends = self.rows(
            "SELECT 1 FROM container_manager_routingevent WHERE job_id = %s AND kind = 'job_finished'", job_id
        )
        assert len(ends) == 1, token


def said(process: subprocess.Popen[str], timeout: float = 30) -> str:
    ready, _, _ = select.select([process.stdout], [], [], timeout)
    assert ready, "the worker says nothing"
    return process.stdout.readline().strip()


@pytest.fixture(scope="module")
def fleet(engine: Engine, cluster: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    started = Fleet(tmp_path_factory.mktemp("takeover"), engine, cluster.database())
    yield started
    assert started.service.terminate() == 0


def frozen(fleet: Fleet, step: str) -> None:
    worker = fleet.worker(token := f"frozen-{step.replace(' ', '-')}")
    job_id = fleet.stop_at(worker, step, signal.SIGSTOP, token)
    eventually_sync(lambda: fleet.verdict(job_id), 60, f"taken over: {token}")
    os.kill(worker.pid, signal.SIGCONT)
    assert said(worker) == "over", token
    fleet.check(job_id, token)
    worker.stdin.close()
    assert worker.wait(20) == 0, token
    worker.stdout.close()


def killed(fleet: Fleet, step: str) -> None:
    worker = fleet.worker(token := f"killed-{step.replace(' ', '-')}")
    job_id = fleet.stop_at(worker, step, signal.SIGKILL, token)
    worker.wait(10)
    worker.stdin.close()
    worker.stdout.close()
    fleet.check(job_id, token)


@pytest.mark.parametrize("fate", [frozen, killed])
def test_whoever_stops_at_any_step_one_container_runs_once(fleet: Fleet, fate: Callable[[Fleet, str], None]) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(fate, fleet, step) for step in STEPS]:
            done.result()
    eventually_sync(lambda: fleet.engine.containers() == [], 15, "nothing is left")
