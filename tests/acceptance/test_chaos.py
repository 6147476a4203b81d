"""Everything dies at random while jobs run: what the containers did is compared with what the database says."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests import engines
from tests.client import CREATE_HOST
from tests.engines import Engine
from tests.eventually import eventually_sync
from tests.postgres import Postgres
from tests.processes import UNMEASURED, Served

JOBS, SLOTS, KILLS = 180, 6, 5
KEY = "only-for-tests-only-for-tests-only-for-tests"
SUBMIT = "mutation($inputs: [JobInput!]!) { submitJobs(inputs: $inputs) { ... on ContainerJob { id } } }"
ACTIVE = "('routed', 'launching', 'running')"
ENDED = "('succeeded', 'failed', 'timed_out', 'cancelled')"


class Fleet:
    """Three engines, a PostgreSQL, and one service at a time."""

    def __init__(self, folder: Path, hosts: list[Engine], url: str) -> None:
        self.folder, self.engines, self.url = folder, hosts, url
        self.variables = {
            "CONTAINER_MANAGER_DATABASE_URL": url, "CONTAINER_MANAGER_SECRET_KEY": KEY, **UNMEASURED,
            "CONTAINER_MANAGER_LEASE_SECONDS": "3", "CONTAINER_MANAGER_ORPHAN_GRACE_SECONDS": "3",
            "CONTAINER_MANAGER_PROBE_INTERVAL_SECONDS": "1", "CONTAINER_MANAGER_PROBE_TIMEOUT_SECONDS": "2",
            "CONTAINER_MANAGER_INFRASTRUCTURE_RETRIES": "20", "CONTAINER_MANAGER_LOG_LEVEL": "warning",
        }  # fmt: skip
        self.token = ""
        self.serve()

    def serve(self) -> None:
        self.service = Served(self.folder / "service", **self.variables)
        self.token = self.token or self.service.token

    def rows(self, query: str, *parameters: object) -> list[tuple]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query, parameters).fetchall()

    def ended(self) -> int:
        return self.rows(f"SELECT COUNT(*) FROM container_manager_containerjob WHERE status IN {ENDED}")[0][0]

    def until_ended(self, count: int, seed: int) -> None:
        """Wait for so many ends; if they do not come, say all that could tell why."""
        try:
            eventually_sync(lambda: self.ended() >= count, 120, f"{count} jobs ended, seed {seed}")
        except AssertionError as error:
            job, host = "container_manager_containerjob", "container_manager_executorhost"
            tails = [self.service.stderr, *(engine.folder / "log" for engine in self.engines)]
            told = {
                "now": self.rows("SELECT now()"),
                "not ended": self.rows(f"SELECT to_jsonb(row) FROM {job} row WHERE status NOT IN {ENDED} LIMIT 5"),
                "hosts": self.rows(f"SELECT to_jsonb(row) FROM {host} row"),
                "containers": [(engine.url, engine.containers()) for engine in self.engines if engine.answers()],
                **{str(path): path.read_text(errors="replace")[-3000:] for path in tails},
            }
            raise AssertionError(
                "\n".join([str(error), *(f"{what}: {value}" for what, value in told.items())])
            ) from error

    # -------------------------------------------------------------- what goes wrong

    def kill(self) -> None:
        self.service.kill()
        self.serve()

    def pause(self) -> None:
        engine = random.choice(self.engines)
        engine.pause()
        threading.Timer(4, engine.resume).start()

    def restart(self, how: signal.Signals) -> Callable[[], None]:
        return lambda: random.choice(self.engines).restart(how)

    def cut(self) -> None:
        self.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )


class Auditor(threading.Thread):
    """Looks all the time whether a host has more than it may."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(daemon=True)
        self.fleet, self.over, self.stopped, self.looks = fleet, [], False, 0

    def run(self) -> None:
        query = f"SELECT host_id, COUNT(*) FROM container_manager_containerjob WHERE status IN {ACTIVE} GROUP BY 1"
        while not self.stopped:
            with suppress(psycopg.Error):  # its own connection is cut, too
                self.over += [row for row in self.fleet.rows(query) if row[1] > SLOTS]
                self.looks += 1
            for engine in self.fleet.engines:
                running = engine.running()
                if len(running) > SLOTS:
                    self.over.append([container["Names"] for container in running])
            time.sleep(0.1)


@pytest.fixture
def fleet(cluster: Postgres, tmp_path: Path) -> Iterator[Fleet]:
    if (why := engines.missing()) is not None:
        pytest.skip(why)
    hosts = [Engine() for _ in range(3)]
    threads = [threading.Thread(target=host.start) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    started = Fleet(tmp_path, hosts, cluster.database())
    yield started
    started.service.terminate()
    for host in hosts:
        host.stop()


def code(number: int) -> int:
    return 3 if number % 10 == 0 else 0


def test_jobs_end_in_their_true_state_though_parts_die(fleet: Fleet, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    random.seed(seed)
    journal = tmp_path / "journal"
    journal.mkdir()
    for number, engine in enumerate(fleet.engines):
        mounts = {"/journal": {"source": str(journal), "read_only": False}}
        config = {"url": engine.url, "mounts": mounts, "max_launches": 3}
        limits = {"maxConcurrentJobs": SLOTS, "maxCpuCores": 100}
        host = {"name": f"engine-{number}", "executorType": "DOCKER", "config": config, **limits}
        assert "capacity" in fleet.service.query(fleet.token, CREATE_HOST, input=host)
    inputs = [
        {
            "image": "busybox:test", "name": str(number), "cpuLimit": 0.5, "memoryLimitMb": 32,
            "command": [
                "sh", "-c", f"trap 'exit 0' TERM; f=/journal/{number}; echo begin $CONTAINER_MANAGER_ATTEMPT >> $f; sleep 0.{number % 10}; "
                f"echo end $CONTAINER_MANAGER_ATTEMPT >> $f; exit {code(number)}",
            ],
        }
        for number in range(JOBS)
    ]  # fmt: skip
    assert len(fleet.service.query(fleet.token, SUBMIT, inputs=inputs)) == JOBS

    troubles = [fleet.kill] * KILLS + [fleet.pause] * 2 + [fleet.cut] * 2
    troubles += [fleet.restart(signal.SIGTERM)] * 2 + [fleet.restart(signal.SIGKILL)]
    random.shuffle(troubles)
    auditor = Auditor(fleet)
    auditor.start()
    for number, trouble in enumerate(troubles):
        due = JOBS * number // (len(troubles) + 1)
        fleet.until_ended(due, seed)
        time.sleep(random.uniform(0, 0.5))
        trouble()
    fleet.until_ended(JOBS, seed)
    auditor.stopped = True
    auditor.join(10)

    found = fleet.rows("SELECT name, status, exit_code, attempt, error FROM container_manager_containerjob")
    attempts = dict(
        fleet.rows("SELECT job.name, COUNT(*) FROM container_manager_jobattempt a "
                   "JOIN container_manager_containerjob job ON job.id = a.job_id GROUP BY 1")
    )  # fmt: skip
    for name, status, exit_code, attempt, error in found:
        where = f"job {name} {status} {exit_code}, attempt {attempt}: {error}; seed {seed}"
        expected = code(int(name))
        assert (status, exit_code) == ("failed" if expected else "succeeded", expected), where
        lines = Counter((journal / name).read_text().splitlines())
        assert set(lines.values()) == {1}, f"each attempt ran at most once: {lines}; {where}"
        assert lines[f"end {attempt}"] == 1, where
        assert all(int(line.split()[1]) <= attempt for line in lines), where
        assert attempts.get(name, 0) == attempt - 1, where
    assert auditor.over == [], f"slots are never exceeded; seed {seed}"
    assert auditor.looks > 20
    for engine in fleet.engines:
        eventually_sync(lambda engine=engine: engine.containers() == [], 30, f"nothing is left behind; seed {seed}")
