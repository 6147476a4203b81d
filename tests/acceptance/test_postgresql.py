"""Many processes on one PostgreSQL: nothing is over-committed, routed twice or lost, though processes die or freeze."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psycopg
import pytest

from container_manager.store.listen import APPLICATION_NAME
from container_manager.store.transaction import ROUTING_LOCK
from tests.client import CREATE_HOST, EVENTS, SUBMIT, Api
from tests.eventually import eventually_sync
from tests.postgres import Postgres
from tests.processes import ROOT, Served, command, environment

KEY = "only-for-tests-only-for-tests-only-for-tests"
SLOTS, MEMORY = 6, 2000

OVERCOMMITTED = """
    SELECT host.name, COUNT(*), SUM(job.memory_limit), SUM(job.cpu_limit)
    FROM container_manager_executorhost host
    JOIN container_manager_containerjob job ON job.host_id = host.id
    WHERE job.status IN ('routed', 'launching', 'running')
    GROUP BY host.id
    HAVING COUNT(*) > host.max_concurrent_jobs OR SUM(job.memory_limit) > host.max_memory_mb
        OR SUM(job.cpu_limit) > host.max_cpu_cores
"""


@pytest.fixture
def database(cluster: Postgres, tmp_path: Path) -> dict[str, str]:
    """The environment of processes on a new database with ten small hosts."""
    url = cluster.database()
    variables = environment(
        tmp_path, CONTAINER_MANAGER_DATABASE_URL=url, CONTAINER_MANAGER_SECRET_KEY=KEY, CONTAINER_MANAGER_LOG_LEVEL="error",
        DJANGO_SETTINGS_MODULE="container_manager.settings",
    )  # fmt: skip
    subprocess.run([sys.executable, "-m", "django", "migrate", "-v", "0"], env=variables, cwd=ROOT, check=True)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            """INSERT INTO container_manager_executorhost (name, executor_type, region, labels, routing_weight, is_active,
                   is_draining, max_concurrent_jobs, max_memory_mb, max_cpu_cores, config_version, node, only_preferred,
                   health_status, health_error, consecutive_failures, consecutive_successes, launch_failures, ejections,
                   cooldowns, launch_error, created_at, grants)
               SELECT 'host-' || n, 'docker', '', '{}', n, true, false, %s, %s, 2000, 0, '', false, 'healthy', '', 0, 0,
                   0, 0, 0, '', now(), '[]'
               FROM generate_series(1, 10) n""",
            [SLOTS, MEMORY],
        )
    return variables


def router(variables: dict[str, str], name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.router_process", name, str(count)],
        env=variables, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


class Auditor(threading.Thread):
    """Looks at the database all the time, each time at one committed state."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._done = threading.Event()
        self.looks = 0
        self.found: list[object] = []

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._done.is_set():
                self.found += connection.execute(OVERCOMMITTED).fetchall()
                self.looks += 1

    def finish(self) -> None:
        self._done.set()
        self.join(10)


def test_eight_processes_route_at_once_and_some_are_killed(database: dict[str, str]) -> None:
    url = database["CONTAINER_MANAGER_DATABASE_URL"]
    auditor = Auditor(url)
    auditor.start()
    routers = [router(database, f"r{number}", 12) for number in range(8)]
    with psycopg.connect(url, autocommit=True) as connection:
        for number, victim in enumerate(random.Random(7).sample(routers, 3)):
            eventually_sync(lambda seen=100 * (number + 1): jobs(connection) > seen, 60)
            victim.kill()
        acknowledged = [int(line) for process in routers for line in process.communicate(timeout=120)[0].split()]
        errors = [process.returncode for process in routers if process.returncode not in {0, -signal.SIGKILL}]
        auditor.finish()
        assert errors == []
        assert auditor.found == []
        assert auditor.looks > 50
        assert len(acknowledged) == len(set(acknowledged))
        known = {row[0] for row in connection.execute("SELECT id FROM container_manager_containerjob")}
        assert set(acknowledged) <= known, "what was acknowledged is lost"
        assert len(acknowledged) > 800
        routed = connection.execute(
            "SELECT job_id, COUNT(*) FROM container_manager_routingdecision WHERE host_id IS NOT NULL GROUP BY job_id"
        ).fetchall()
        assert Counter(count for _, count in routed) == {1: len(routed)}, "a job was routed twice"
        told = connection.execute(
            "SELECT COUNT(*) FROM container_manager_routingevent WHERE kind = 'job_routed'"
        ).fetchone()
        assert told == (len(routed),)
        held = connection.execute(
            "SELECT COUNT(*) FROM container_manager_containerjob WHERE host_id IS NOT NULL"
        ).fetchone()
        assert held == (len(routed),)


def jobs(connection: psycopg.Connection) -> int:
    return connection.execute("SELECT COUNT(*) FROM container_manager_containerjob").fetchone()[0]


def test_a_process_frozen_in_the_routing_transaction_does_not_block_others_for_long(database: dict[str, str]) -> None:
    with (
        router(database, "freeze", 3) as frozen,
        psycopg.connect(database["CONTAINER_MANAGER_DATABASE_URL"]) as connection,
    ):
        try:
            state = Path(f"/proc/{frozen.pid}/stat")
            eventually_sync(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", 30)
            began = time.monotonic()
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [ROUTING_LOCK])
            waited = time.monotonic() - began
            connection.rollback()
            assert 1 < waited < 6, "the lock was not held, or for too long"
            with router(database, "other", 1) as other:
                assert other.communicate(timeout=30)[0].count("\n") == 16
            os.kill(frozen.pid, signal.SIGCONT)
            out, err = frozen.communicate(timeout=30)
        finally:
            frozen.kill()
    assert out.split() == [], "its transaction was thrown out, and it knows"
    assert "error" in err
    assert frozen.returncode == 0


def test_roles_share_the_work_and_hear_of_each_other_at_once(cluster: Postgres, tmp_path: Path) -> None:
    # The encoding of a cluster that was made with no locale set.
    url = cluster.database("SQL_ASCII")
    variables = {"CONTAINER_MANAGER_DATABASE_URL": url, "CONTAINER_MANAGER_SECRET_KEY": KEY}
    # A lease so long that waking for its renewal would be noticed.
    variables |= {"CONTAINER_MANAGER_LEASE_SECONDS": "60", "CONTAINER_MANAGER_LOG_LEVEL": "warning"}
    with (
        Served(tmp_path / "api", "serve", "--port", "0", "--role", "api", **variables) as api,
        Served(tmp_path / "worker", "serve", "--port", "0", "--role", "worker", **variables) as worker,
    ):
        assert worker.token is None
        assert httpx.get(f"{worker.url}/graphql").status_code == 404, "it has no API"
        assert httpx.get(f"{worker.url}/readyz").json() == {"ready": True, "failing": []}
        config = {"accept": "any", "launch_ms": 0, "run_ms": 10}
        host = {"name": "sim", "executorType": "SIMULATED", "config": config, "maxConcurrentJobs": 1}
        assert api.query(api.token, CREATE_HOST, input=host)["health"]["status"] == "HEALTHY"
        took = asyncio.run(_ten_jobs(api))
        assert took < 5, "one after the other, and no poll decided how fast"
        # One that waits for room is cancelled, and one that runs.
        first, second = (
            api.query(api.token, SUBMIT, input={"image": "busybox", "command": ["sleep 60"]}) for _ in range(2)
        )
        for job in (second, first):
            api.query(api.token, "mutation($id: ID!) { cancelJob(id: $id) { __typename } }", id=job["id"])
        cancelled = "{ jobs(filters: {status: [CANCELLED]}) { edges { node { id } } } }"
        eventually_sync(lambda: len(api.query(api.token, cancelled)["edges"]) == 2, 5, "the worker gets the event")
        assert worker.terminate() == 0
        assert api.terminate() == 0


async def _ten_jobs(api: Served) -> float:
    client = Api(api.url, api.token)
    began, finished = time.monotonic(), {"kinds": ["JOB_FINISHED"]}
    async with client.subscribe(EVENTS, filters=finished) as events:
        for _ in range(10):
            await client.submit(command=["true"])
        for _ in range(10):
            await anext(events)
    await client.http.aclose()
    return time.monotonic() - began


def test_the_listener_comes_back_with_the_database(cluster: Postgres, tmp_path: Path) -> None:
    url = cluster.database()
    variables = {"CONTAINER_MANAGER_DATABASE_URL": url, "CONTAINER_MANAGER_SECRET_KEY": KEY}
    with Served(tmp_path / "api", "serve", "--port", "0", "--role", "api", **variables) as api:
        listening = f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = '{APPLICATION_NAME}'"
        with psycopg.connect(url, autocommit=True) as connection:
            (pid,) = eventually_sync(lambda: connection.execute(listening).fetchone(), 10)
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
            again = eventually_sync(lambda: connection.execute(listening + " AND pid <> %s", [pid]).fetchone(), 10)
        assert again
        assert "LISTEN does not work" in api.stderr.read_text()
        assert api.terminate() == 0


UPGRADE = "import django; django.setup(); from container_manager import startup; startup.migrate()"


def test_an_upgrade_that_waits_for_a_backup_blocks_no_statement(database: dict[str, str]) -> None:
    before = [sys.executable, "-m", "django", "migrate", "container_manager", "0004", "-v", "0"]
    subprocess.run(before, env=database, cwd=ROOT, check=True)
    url, jobs = database["CONTAINER_MANAGER_DATABASE_URL"], "SELECT COUNT(*) FROM container_manager_containerjob"
    with psycopg.connect(url) as backup, psycopg.connect(url, autocommit=True) as other:
        backup.execute(jobs)
        variables = {**database, "CONTAINER_MANAGER_LOG_LEVEL": "warning"}
        upgrade = subprocess.Popen([sys.executable, "-c", UPGRADE], env=variables, cwd=ROOT, stderr=subprocess.PIPE)
        assert b"the upgrade is retried" in upgrade.stderr.readline()
        other.execute("SET statement_timeout = '3s'")
        for _ in range(3):
            other.execute(jobs)
            other.execute("SELECT pg_advisory_xact_lock(%s)", [ROUTING_LOCK])
            assert b"the upgrade is retried" in upgrade.stderr.readline()
        backup.rollback()
        assert upgrade.wait(20) == 0
        upgrade.stderr.close()
        other.execute("SELECT trace_parent FROM container_manager_containerjob")


NOTIFIED = """
import django
django.setup()
from django.db import connection
with connection.cursor() as sql:
    sql.execute("LISTEN here")
    for _ in range(3):
        sql.execute("NOTIFY here")
print(len(connection.connection._notifies_backlog))
"""


def test_notifications_that_a_pool_delivers_to_the_wrong_client_are_dropped(database: dict[str, str]) -> None:
    script = [sys.executable, "-c", NOTIFIED]
    result = subprocess.run(script, env=database, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_a_role_needs_postgresql(tmp_path: Path) -> None:
    done = command(tmp_path, "serve", "--port", "0", "--role", "worker")
    assert done.returncode == 1
    assert "--role worker needs PostgreSQL (CONTAINER_MANAGER_DATABASE_URL)" in done.stderr
    done = command(tmp_path, "serve", CONTAINER_MANAGER_LISTEN_URL="postgresql://x/y")
    assert "CONTAINER_MANAGER_LISTEN_URL needs a DATABASE_URL that is PostgreSQL's" in done.stderr
