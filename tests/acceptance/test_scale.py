"""Many processes and many subscribers, through restarts: no event is lost, skipped or sent twice."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import websockets

from tests import postgres
from tests.client import CREATE_HOST, Api
from tests.eventually import eventually, eventually_sync
from tests.postgres import PgBouncer, Postgres, free_port
from tests.processes import ROOT, UNMEASURED, Served, environment

KEY = "only-for-tests-only-for-tests-only-for-tests"
SUBMIT = """mutation($input: JobInput!) { submitJob(input: $input) {
    ... on ContainerJob { id } ... on UserError { message } } }"""
SIMULATED = {
    "name": "sim", "executorType": "SIMULATED", "maxConcurrentJobs": 50,
    "config": {"accept": "any", "launch_ms": 5, "run_ms": 50},
}  # fmt: skip
STATUSES = "SELECT status, COUNT(*) FROM container_manager_containerjob GROUP BY status"


def settings(url: str, **more: str) -> dict[str, str]:
    return {
        "CONTAINER_MANAGER_DATABASE_URL": url, "CONTAINER_MANAGER_SECRET_KEY": KEY,
        "CONTAINER_MANAGER_LOG_LEVEL": "warning", "CONTAINER_MANAGER_LEASE_SECONDS": "3", **UNMEASURED, **more,
    }  # fmt: skip


def serve(folder: Path, role: str, variables: dict[str, str], *more: str, port: int = 0) -> Served:
    return Served(folder, "serve", "--port", str(port), "--role", role, *more, **variables)


# ------------------------------------------------------------------ events

WRITERS, TRANSACTIONS, EACH = 4, 60, 50
ONE_BY_ONE = "subscription($after: String) { routingEvents(after: $after) { cursor } }"
BATCHES = "subscription($after: String) { routingEventBatches(after: $after, everyMs: 20) { cursor } }"


class Reader:
    """A subscriber that disconnects at random and continues after its last cursor."""

    def __init__(self, number: int, urls: list[str], token: str) -> None:
        self._dice = random.Random(number)
        self._urls, self._token = urls, token
        self._query = ONE_BY_ONE if number in {0, 5} else BATCHES
        self._slow = number == 5
        self.seen: list[int] = []
        self.connections = 0

    async def read(self, total: int, written: asyncio.Event) -> None:
        while len(self.seen) < total:
            self.connections += 1
            patience = self._dice.randint(1, total // 2)
            with suppress(websockets.ConnectionClosed):
                await self._connection(total, patience, written)

    async def _connection(self, total: int, patience: int, written: asyncio.Event) -> None:
        url = self._dice.choice(self._urls)
        after = str(self.seen[-1]) if self.seen else "0"
        async with Api(url, self._token).subscribe(self._query, after=after) as values:
            async for value in values:
                events = value if isinstance(value, list) else [value]
                self.seen += [int(event["cursor"]) for event in events]
                patience -= len(events)
                if patience <= 0 or len(self.seen) >= total:
                    return
                if self._slow and not written.is_set():
                    await asyncio.sleep(0.005)


async def test_each_of_twenty_subscribers_sees_each_event_once(cluster: Postgres, tmp_path: Path) -> None:
    url = cluster.database()
    variables = settings(url)
    with serve(tmp_path / "a", "api", variables) as one, serve(tmp_path / "b", "api", variables) as two:
        readers = [Reader(number, [one.url, two.url], one.token) for number in range(20)]
        written, total = asyncio.Event(), WRITERS * TRANSACTIONS * EACH
        reading = [asyncio.create_task(reader.read(total, written)) for reader in readers]
        writers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.event_writer", str(number), str(TRANSACTIONS), str(EACH)],
                env=environment(tmp_path, **variables), cwd=ROOT,
            )
            for number in range(WRITERS)
        ]  # fmt: skip
        await eventually(lambda: all(writer.poll() is not None for writer in writers), 120)
        assert [writer.returncode for writer in writers] == [0] * WRITERS
        written.set()
        await asyncio.wait_for(asyncio.gather(*reading), 240)
        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT id, message FROM container_manager_routingevent ORDER BY id").fetchall()
    told = [row[0] for row in rows]
    assert len(told) == total
    assert [reader.seen == told for reader in readers] == [True] * len(readers)
    assert sum(reader.connections for reader in readers) > 2 * len(readers)
    order = [message for (_, message) in rows[::EACH]]
    assert sorted(order) != order, "transactions of different processes came in turn"


# ------------------------------------------------------------------ restarts


class Load(threading.Thread):
    """Submits jobs all the time, each until it is acknowledged; knows what was and what went wrong on the way."""

    def __init__(self, name: str, urls: list[str], token: str) -> None:
        super().__init__(daemon=True)
        self._name, self._urls, self._token = name, urls, token
        self._done = threading.Event()
        self.acknowledged: dict[str, str] = {}
        self.broken: list[str] = []
        """Connections that were refused or broken off."""
        self.refused: list[str] = []
        """Answers that are none."""

    def run(self) -> None:
        number = 0
        while not self._done.is_set():
            number += 1
            key = f"{self._name}-{number}"
            while key not in self.acknowledged and not self._done.is_set():
                self._try(key, self._urls[(number + len(self.broken)) % len(self._urls)])

    def _try(self, key: str, url: str) -> None:
        job = {"image": "x", "name": key, "command": ["true"], "idempotencyKey": key}
        try:
            answer = httpx.post(
                f"{url}/graphql", json={"query": SUBMIT, "variables": {"input": job}}, timeout=30,
                headers={"Authorization": f"Bearer {self._token}"},
            )  # fmt: skip
        except httpx.TransportError as error:
            self.broken.append(repr(error))
            self._done.wait(0.02)
            return
        told = answer.json() if answer.status_code == 200 else {}
        if (job_id := ((told.get("data") or {}).get("submitJob") or {}).get("id")) is not None:
            self.acknowledged[key] = job_id
        else:
            self.refused.append(answer.text)
            self._done.wait(0.02)

    def finish(self) -> None:
        self._done.set()
        self.join(60)


def all_succeeded(url: str, loads: list[Load]) -> bool:
    with psycopg.connect(url) as connection:
        statuses = dict(connection.execute(STATUSES).fetchall())
    return set(statuses) == {"succeeded"} and statuses["succeeded"] >= sum(len(load.acknowledged) for load in loads)


def assert_ran_once(url: str, loads: list[Load]) -> None:
    """What was acknowledged is there once, and was routed and ended once."""
    with psycopg.connect(url) as connection:
        names = Counter(row[0] for row in connection.execute("SELECT name FROM container_manager_containerjob"))
        ends = Counter(
            row[0]
            for row in connection.execute(
                "SELECT job_id FROM container_manager_routingevent WHERE kind = 'job_finished'"
            )
        )
    acknowledged = {key for load in loads for key in load.acknowledged}
    assert acknowledged <= set(names), "what was acknowledged is lost"
    assert set(names.values()) == {1}
    assert set(ends.values()) == {1}
    assert len(ends) == len(names)


def begin(api: Served, urls: list[str]) -> list[Load]:
    assert api.query(api.token, CREATE_HOST, input=SIMULATED)["health"]["status"] == "HEALTHY"
    loads = [Load(str(number), urls, api.token) for number in range(4)]
    for load in loads:
        load.start()
    eventually_sync(lambda: all(len(load.acknowledged) > 10 for load in loads), 30)
    return loads


@contextmanager
def proxy(folder: Path, ports: list[int]) -> Iterator[str]:
    """HAProxy with the configuration that we ship, but for the addresses."""
    if shutil.which("haproxy") is None:
        pytest.skip("HAProxy is not installed (Debian: apt-get install haproxy).")
    text = (ROOT / "deploy" / "haproxy.cfg").read_text()
    port = free_port()
    addresses = {"bind :8000": f"bind 127.0.0.1:{port}"}
    addresses |= {f"api-{n}:8000": f"127.0.0.1:{at}" for n, at in enumerate(ports, 1)}
    for shipped, here in addresses.items():
        assert shipped in text
        text = text.replace(shipped, here)
    (folder / "haproxy.cfg").write_text(text)
    with subprocess.Popen(["haproxy", "-f", str(folder / "haproxy.cfg")], stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_a_rolling_restart_behind_a_proxy_fails_no_request_and_loses_nothing(cluster: Postgres, tmp_path: Path) -> None:
    url = cluster.database()
    variables = settings(url, CONTAINER_MANAGER_DRAIN_SECONDS="4")
    roles, ports = ["api", "api", "worker", "worker"], [free_port() for _ in range(4)]
    with ExitStack() as stack:

        def start(turn: int, name: str) -> Served:
            return stack.enter_context(serve(tmp_path / name, roles[turn], variables, port=ports[turn]))

        served = [start(turn, f"before-{turn}") for turn in range(len(roles))]
        public = stack.enter_context(proxy(tmp_path, ports[:2]))
        eventually_sync(lambda: _answers(public))
        loads = begin(served[0], [public])
        told = asyncio.run(_through(public, served[0].token))
        _pretend(public, served[0].token)
        for turn in range(len(roles)):
            done = sum(len(load.acknowledged) for load in loads)
            assert served[turn].terminate() == 0
            assert "Traceback" not in served[turn].stderr.read_text()
            start(turn, f"after-{turn}")
            eventually_sync(lambda done=done: sum(len(load.acknowledged) for load in loads) > done + 20, 30)
        for load in loads:
            load.finish()
        assert [(load.refused, load.broken) for load in loads] == [([], [])] * len(loads)
        eventually_sync(lambda: all_succeeded(url, loads), 30)
        assert_ran_once(url, loads)
        with psycopg.connect(url) as connection:
            audited = connection.execute(
                "SELECT DISTINCT address FROM container_manager_auditentry WHERE address <> ''"
            ).fetchall()
    assert told
    assert audited == [("127.0.0.1",)]


def _pretend(public: str, token: str) -> None:
    """Change something, with a false address in a header."""
    headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "6.6.6.6"}
    request = {"query": CREATE_HOST, "variables": {"input": {"name": "other", "executorType": "SIMULATED"}}}
    httpx.post(f"{public}/graphql", json=request, headers=headers).raise_for_status()


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/livez").status_code == 200
    return False


async def _through(public: str, token: str) -> bool:
    """WebSocket and Server-Sent Events come through the proxy."""
    api = Api(public, token)
    async with api.subscribe(ONE_BY_ONE) as values:
        first = await anext(values)
    body, headers = {"query": ONE_BY_ONE, "variables": {"after": first["cursor"]}}, {"Accept": "text/event-stream"}
    async with api.http.stream("POST", "/graphql", json=body, headers=headers) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                return int(json.loads(line[6:])["data"]["routingEvents"]["cursor"]) > int(first["cursor"])
    return False


def test_processes_outlive_a_database_that_crashes_under_load(other_cluster: Postgres, tmp_path: Path) -> None:
    url = other_cluster.database()
    variables = settings(url)
    with serve(tmp_path / "api", "api", variables) as api, serve(tmp_path / "worker", "worker", variables) as worker:
        loads = begin(api, [api.url])
        headers = {"Authorization": f"Bearer {api.token}"}
        assert "host_healthy" in httpx.get(f"{api.url}/metrics", headers=headers).text
        other_cluster.crash()
        for process in (api, worker):
            down = eventually_sync(lambda p=process: _unready(p), 10, "readyz tells the truth")
            assert "The database does not answer." in down["failing"]
            assert httpx.get(f"{process.url}/livez").status_code == 200
        metrics = httpx.get(f"{api.url}/metrics", headers=headers)
        assert metrics.status_code == 200
        assert "container_manager_commit_seconds" in metrics.text
        assert httpx.get(f"{api.url}/metrics", headers={"Authorization": "Bearer x"}).status_code == 503
        # What needs the database, whether the token is still known or not.
        answer = httpx.post(f"{api.url}/graphql", json={"query": "{ eventCursor }"}, headers=headers)
        assert answer.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
        # A token that was looked up within the last second still lets a client in; its events come later.
        eventually_sync(lambda: asyncio.run(_close_code(api)) == 1013, 10, "connections are put off")
        other_cluster.resume()
        began, before = time.monotonic(), sum(len(load.acknowledged) for load in loads)
        for process in (api, worker):
            eventually_sync(lambda p=process: not _unready(p), 10, "ready again")
        eventually_sync(lambda: sum(len(load.acknowledged) for load in loads) > before + 20, 10)
        eventually_sync(lambda: _starts(url), 10, "jobs run again")
        assert time.monotonic() - began < 10
        for load in loads:
            load.finish()
        assert not any("Traceback" in text or "psycopg" in text for load in loads for text in load.refused)
        codes = {
            error["extensions"]["code"]
            for load in loads
            for text in load.refused
            for error in json.loads(text)["errors"]
        }
        assert codes == {"UNAVAILABLE"}
        eventually_sync(lambda: all_succeeded(url, loads), 30)
        assert_ran_once(url, loads)
        assert worker.terminate() == 0
        assert api.terminate() == 0
        assert "Traceback" not in api.stderr.read_text()


async def _close_code(api: Served) -> int | None:
    """Why a new WebSocket is closed; None if it is not."""
    try:
        async with Api(api.url, api.token).socket():
            return None
    except websockets.ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def _unready(process: Served) -> dict[str, Any] | None:
    answer = httpx.get(f"{process.url}/readyz", timeout=5)
    return answer.json() if answer.status_code == 503 else None


def _starts(url: str) -> bool:
    with psycopg.connect(url) as connection:
        query = "SELECT 1 FROM container_manager_containerjob WHERE started_at > now() - interval '1 second' LIMIT 1"
        return connection.execute(query).fetchone() is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="Losing packets needs root.")
def test_a_database_whose_host_is_gone_without_a_word_is_found_out(tmp_path: Path) -> None:
    missing = [program for program in ("unshare", "ip", "iptables") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"Losing packets needs {missing} (Debian: iproute2, iptables).")
    apart = ["unshare", "--net", sys.executable, "-m", "tests.lost_packets", str(tmp_path / "a")]
    result = subprocess.run(apart, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stderr
    # 10 s until a connection counts as lost, and as much again to look for it elsewhere; TCP itself takes 15 minutes.
    assert float(result.stdout) < 45


# ------------------------------------------------------------------ a pool in between, and processes on one port


def test_pgbouncer_in_transaction_mode_will_do(cluster: Postgres, tmp_path: Path) -> None:
    if not postgres.PGBOUNCER.exists():
        pytest.skip("PgBouncer is not installed (Debian: apt-get install pgbouncer).")
    url = cluster.database()
    with PgBouncer(url, connections=3) as bouncer:
        variables = settings(bouncer.url, CONTAINER_MANAGER_LISTEN_URL=url)
        with (
            serve(tmp_path / "a", "api", variables) as api,
            serve(tmp_path / "b", "all", variables),
            serve(tmp_path / "c", "worker", variables) as worker,
        ):
            loads = begin(api, [api.url])
            eventually_sync(lambda: all(len(load.acknowledged) > 50 for load in loads), 30)
            # A subscriber of one process gets what others commit.
            events = asyncio.run(_some_events(api))
            assert events == sorted(events)
            for load in loads:
                load.finish()
            assert [(load.refused, load.broken) for load in loads] == [([], [])] * len(loads)
            eventually_sync(lambda: all_succeeded(url, loads), 30)
            assert_ran_once(url, loads)
            assert worker.terminate() == 0
            for name in ("a", "b", "c"):
                assert '"level": "error"' not in (tmp_path / name / "stderr").read_text()


def test_without_notifications_a_process_polls_and_says_so(cluster: Postgres, tmp_path: Path) -> None:
    if not postgres.PGBOUNCER.exists():
        pytest.skip("PgBouncer is not installed (Debian: apt-get install pgbouncer).")
    with PgBouncer(cluster.database(), connections=3) as bouncer:
        variables = settings(bouncer.url)
        with (
            serve(tmp_path / "a", "api", variables) as api,
            serve(tmp_path / "b", "worker", variables) as worker,
        ):
            assert api.query(api.token, CREATE_HOST, input=SIMULATED)["health"]["status"] == "HEALTHY"
            for process in (api, worker):
                eventually_sync(lambda p=process: "must be a direct connection" in p.stderr.read_text(), 15)
            job = {"image": "x", "command": ["true"]}
            api.query(api.token, SUBMIT, input=job)
            done = "{ jobs(filters: {status: [SUCCEEDED]}) { edges { node { id } } } }"
            eventually_sync(lambda: api.query(api.token, done)["edges"], 10, "the worker has looked")
            assert "Traceback" not in worker.stderr.read_text()


async def _some_events(api: Served) -> list[int]:
    client = Api(api.url, api.token)
    async with client.subscribe(ONE_BY_ONE) as values:
        return [int((await anext(values))["cursor"]) for _ in range(100)]


def test_workers_share_a_port_and_are_replaced(cluster: Postgres, tmp_path: Path) -> None:
    url = cluster.database()
    variables = settings(url, CONTAINER_MANAGER_PROBE_INTERVAL_SECONDS="1")
    with serve(tmp_path, "all", variables, "--workers", "2") as served:
        loads = begin(served, [served.url])
        children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children")
        before = _workers(children)
        assert len(before) == 2
        for pid in before:
            subprocess.run(["kill", "-9", str(pid)], check=True)
            eventually_sync(lambda pid=pid: len(_workers(children)) == 2 and pid not in _workers(children), 20)
        killed_at = datetime.now(UTC)
        # The leader of the hosts is dead.
        eventually_sync(lambda: _probed_since(url, killed_at), 15, "another one looks after the hosts")
        done = sum(len(load.acknowledged) for load in loads)
        eventually_sync(lambda: sum(len(load.acknowledged) for load in loads) > done + 50, 20)
        text = httpx.get(f"{served.url}/metrics", headers={"Authorization": f"Bearer {served.token}"}).text
        for load in loads:
            load.finish()
        assert [load.refused for load in loads] == [[]] * len(loads)
        assert 'container_manager_decisions_total{code="",executor_type="simulated",outcome="routed"}' in text
        eventually_sync(lambda: all_succeeded(url, loads), 30)
        assert_ran_once(url, loads)
        assert served.terminate() == 0


def test_workers_end_with_their_supervisor(cluster: Postgres, tmp_path: Path) -> None:
    with serve(tmp_path, "api", settings(cluster.database()), "--workers", "2") as served:
        pids = _workers(Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children"))
        assert len(pids) == 2
        served.process.kill()
        eventually_sync(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20)


def _probed_since(url: str, moment: datetime) -> bool:
    with psycopg.connect(url) as connection:
        probed = connection.execute("SELECT MIN(last_health_check) FROM container_manager_executorhost").fetchone()
    return probed[0] > moment


def _workers(children: Path) -> list[int]:
    """Worker processes, without the helper processes of the library."""
    found = []
    for pid in children.read_text().split():
        with suppress(FileNotFoundError):  # it has just ended
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found
