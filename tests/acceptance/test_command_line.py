"""The service as its operator meets it: started, killed, restarted and misconfigured."""

import asyncio
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets

from tests.client import CREATE_HOST, EVENTS, JOB, SUBMIT, Api
from tests.engines import Engine, Podman
from tests.eventually import eventually, eventually_sync
from tests.postgres import Postgres
from tests.processes import MEASURE, ROOT, UNMEASURED, Served, command, environment

SIMULATED = {"name": "sim", "executorType": "SIMULATED", "config": {"accept": "any", "launch_ms": 0}}
HEALTH = "{ hosts { edges { node { health { status error } } } } }"
NO_ENGINE = {"input": SIMULATED}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(MEASURE, "1")
    return tmp_path


def test_the_first_start_makes_an_admin_token_and_later_ones_do_not(home: Path) -> None:
    with Served(home) as served:
        token = served.token
        assert token.startswith("cm_")
        assert served.query(token, CREATE_HOST, **NO_ENGINE)["health"]["status"] == "HEALTHY"
        assert served.terminate() == 0
    with Served(home) as served:
        assert served.token is None
        assert served.query(token, '{ host(name: "sim") { name } }') == {"name": "sim"}
    assert stat.S_IMODE((home / "secret_key").stat().st_mode) == 0o600
    assert token not in (home / "stderr").read_text()


def test_a_second_server_on_the_same_database_is_refused(home: Path) -> None:
    with Served(home):
        second = command(home, "serve", "--port", "0")
    assert second.returncode == 1
    assert "Another process serves from" in second.stderr
    assert "Traceback" not in second.stderr


def test_tokens_are_made_listed_and_revoked_beside_a_running_server(home: Path) -> None:
    with Served(home) as served:
        made = command(home, "token", "create", "--name", "ci", "--role", "viewer", "--expires", "2")
        secret = made.stdout.strip()
        assert served.query(secret, "{ eventCursor }").isdigit()
        again = command(home, "token", "create", "--name", "ci", "--role", "viewer")
        assert (again.returncode, "a token named 'ci' exists already" in again.stderr) == (1, True)
        listed = command(home, "token", "list").stdout
        assert "ci " in listed
        assert "viewer" in listed
        assert secret not in listed
        assert command(home, "token", "revoke", "ci").returncode == 0
        headers = {"Authorization": f"Bearer {secret}"}

        def is_refused() -> bool:
            answer = httpx.post(f"{served.url}/graphql", json={"query": "{ eventCursor }"}, headers=headers)
            return "UNAUTHENTICATED" in answer.text

        eventually_sync(is_refused, 3)
    assert "There is no token named 'nobody'" in command(home, "token", "revoke", "nobody").stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "sentence"),
    [
        (["serve"], {"CONTAINER_MANAGER_HOEM": "x"}, "CONTAINER_MANAGER_HOEM is not a setting"),
        (["serve"], {"CONTAINER_MANAGER_LEASE_SECONDS": "x"}, "CONTAINER_MANAGER_LEASE_SECONDS"),
        (["serve", "--host", "0.0.0.0", "--no-auth"], {}, "--no-auth is refused on 0.0.0.0"),
        (["serve", "--host", "192.0.2.1"], {}, "Cannot listen on 192.0.2.1:8000"),
        (["check"], {"CONTAINER_MANAGER_HOME": "/proc/nowhere"}, "CONTAINER_MANAGER_HOME"),
        (["serve"], {"CONTAINER_MANAGER_DATABASE_URL": "sqlite:////proc/nowhere/x"}, "cannot be used"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(home: Path, arguments: list, variables: dict, sentence: str) -> None:
    done = command(home, *arguments, **variables)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_usage_is_exit_code_two(home: Path) -> None:
    assert command(home, "serve", "--port", "many").returncode == 2
    assert command(home, "token", "create", "--name", "x", "--role", "king").returncode == 2


def test_a_wrong_secret_key_stops_the_start(home: Path) -> None:
    with Served(home, CONTAINER_MANAGER_SECRET_KEY="a" * 40):
        pass
    wrong = command(home, "serve", "--port", "0", CONTAINER_MANAGER_SECRET_KEY="b" * 40)
    assert wrong.returncode == 1
    assert "CONTAINER_MANAGER_SECRET_KEY is not the key that this database was written with" in wrong.stderr
    rotated = {"CONTAINER_MANAGER_SECRET_KEY": f"{'b' * 40},{'a' * 40}"}
    with Served(home, **rotated):
        pass


ONE, TWO, THREE = (letter * 40 for letter in "abc")
JOB_ONCE = {"image": "x", "idempotencyKey": "once", "command": ["true"]}


def _keys(*keys: str) -> dict[str, str]:
    return {"CONTAINER_MANAGER_SECRET_KEY": ",".join(keys)}


def test_secret_keys_are_rotated_while_the_service_runs(home: Path) -> None:
    hosts = '{ host(name: "sim") { name config } }'
    with Served(home, **_keys(ONE)) as served:
        token = served.token
        served.query(token, CREATE_HOST, input=SIMULATED)
        job = served.query(token, SUBMIT, input=JOB_ONCE)
        assert served.query(token, SUBMIT, input=JOB_ONCE)["id"] == job["id"]
    with Served(home, **_keys(TWO, ONE)) as served:
        assert served.query(token, hosts)["name"] == "sim"
        assert served.query(token, SUBMIT, input=JOB_ONCE)["id"] == job["id"]
        served.query(token, CREATE_HOST, input={**SIMULATED, "name": "two"})
    lacks, wrong = "lacks a key with which values of this database are encrypted", "is not the key that this database"
    for keys, sentence in ((_keys(ONE), lacks), (_keys(TWO), wrong), (_keys(THREE, TWO), wrong)):
        refused = command(home, "serve", "--port", "0", **keys)
        assert refused.returncode == 1
        assert sentence in refused.stderr
    assert command(home, "keys", "rotate", **_keys(TWO)).returncode == 1
    with Served(home, **_keys(TWO, ONE)) as served:
        done = command(home, "keys", "rotate", **_keys(TWO, ONE))
        assert "1 values were encrypted again" in done.stdout, done.stderr
        assert "The others may go" in done.stdout
        audited = served.query(token, "{ auditLog(first: 1) { edges { node { actor action target } } } }")
        assert audited["edges"][0]["node"] == {"actor": "command line", "action": "rotateKeys", "target": "1 values"}
        assert served.query(token, hosts)["name"] == "sim"
        assert "0 values" in command(home, "keys", "rotate", **_keys(TWO, ONE)).stdout
    with Served(home, **_keys(TWO)) as served:
        assert served.query(token, hosts)["config"] == SIMULATED["config"]
    assert "is not the key that this database" in command(home, "serve", "--port", "0", **_keys(ONE)).stderr


def test_a_replaced_token_keeps_its_idempotency_keys(home: Path) -> None:
    with Served(home) as served:
        made = ("token", "create", "--name", "ci", "--role", "operator")
        first = served.query(command(home, *made).stdout.strip(), SUBMIT, input=JOB_ONCE)
        command(home, "token", "revoke", "ci")
        assert served.query(command(home, *made).stdout.strip(), SUBMIT, input=JOB_ONCE)["id"] == first["id"]
        assert served.query(served.token, SUBMIT, input=JOB_ONCE)["id"] != first["id"]


@pytest.mark.parametrize("arguments", [["check"], ["token", "list"], ["token", "revoke", "x"], ["keys", "rotate"]])
def test_only_the_service_changes_the_tables(home: Path, arguments: list[str]) -> None:
    done = command(home, *arguments)
    assert (done.returncode, "start the service first" in done.stderr) == (1, True)
    assert not (home / "container-manager.sqlite3").exists()
    command(home, "token", "create", "--name", "me", "--role", "admin")
    assert stat.S_IMODE((home / "container-manager.sqlite3").stat().st_mode) == 0o600
    newest = max(path.stem for path in (ROOT / "container_manager/migrations").glob("0*.py"))
    for statement, sentence in (
        (f"DELETE FROM django_migrations WHERE name = '{newest}'", "those of an earlier version"),
        (f"INSERT INTO django_migrations (app, name, applied) VALUES ('container_manager', '{newest}', 'x'), "
         "('container_manager', '9999_later', 'x')", "those of a later version (they have 9999_later)"),
    ):  # fmt: skip
        with sqlite3.connect(home / "container-manager.sqlite3") as connection:
            connection.execute(statement)
        done = command(home, *arguments)
        assert (done.returncode, sentence in done.stderr) == (1, True), done.stderr


def test_a_short_secret_key_is_refused(home: Path) -> None:
    (home / "secret_key").write_text("x")
    done = command(home, "check")
    assert (done.returncode, "must have at least 32 characters" in done.stderr) == (1, True)


def test_check_probes_each_host(home: Path) -> None:
    with Served(home) as served:
        assert "There is no host yet" in command(home, "check").stdout
        served.query(served.token, CREATE_HOST, input=SIMULATED)
        served.query(served.token, CREATE_HOST, input={**SIMULATED, "name": "ill", "config": {"healthy": False}})
        far = {"url": "unix:///x", "node": "elsewhere"}
        served.query(served.token, CREATE_HOST, input={"name": "far", "executorType": "DOCKER", "config": far})
        checked = command(home, "check")
    assert checked.returncode == 1
    assert "Host sim (simulated) is healthy; it answered in" in checked.stdout
    assert "Host ill (simulated) is not healthy: The simulated host is configured to be unhealthy" in checked.stdout
    assert "Host far (docker) belongs to node elsewhere" in checked.stdout


def test_a_machine_that_gets_another_name_goes_on(home: Path, engine: Engine) -> None:
    host = {"name": "local", "executorType": "DOCKER", "config": {"url": engine.url}}
    with Served(home, CONTAINER_MANAGER_NODE="laptop.fritz.box") as served:
        token = served.token
        assert served.query(token, CREATE_HOST, input=host)["health"]["status"] == "HEALTHY"
        wanted = {"image": "busybox:test", "command": ["sleep", "2"]}
        job = served.query(token, SUBMIT, input=wanted)
        eventually_sync(lambda: served.query(token, JOB, id=job["id"])["status"] == "RUNNING", 30)
        served.terminate()
    renamed = {"CONTAINER_MANAGER_NODE": "laptop.example.org"}
    with Served(home, **renamed) as served:
        again = served.query(token, SUBMIT, input=wanted)
        for one in (job, again):
            eventually_sync(lambda one=one: served.query(token, JOB, id=one["id"])["status"] == "SUCCEEDED", 30)
        assert "belongs to node laptop.example.org now" in served.stderr.read_text()
    checked = command(home, "check", **renamed)
    assert (checked.returncode, "Host local (docker) is healthy" in checked.stdout) == (0, True), checked


def test_check_says_that_a_host_belongs_to_a_machine_that_is_not_there(
    home: Path, engine: Engine, cluster: Postgres
) -> None:
    variables = {
        "CONTAINER_MANAGER_DATABASE_URL": cluster.database(), "CONTAINER_MANAGER_SECRET_KEY": "only-for-tests" * 3,
        "CONTAINER_MANAGER_PROBE_INTERVAL_SECONDS": "1",
    }  # fmt: skip
    host = {"name": "local", "executorType": "DOCKER", "config": {"url": engine.url}}
    with Served(home, **variables, CONTAINER_MANAGER_NODE="laptop.fritz.box") as served:
        served.query(served.token, CREATE_HOST, input=host)
        other = command(home, "check", **variables, CONTAINER_MANAGER_NODE="other")
        assert (other.returncode, "its workers say that it is healthy" in other.stdout) == (0, True), other
        served.terminate()
        token = served.token
    with Served(home, **variables, CONTAINER_MANAGER_NODE="laptop.example.org") as served:
        health = eventually_sync(lambda: _unknown(served.query(token, HEALTH)), 30)
        assert health["error"].startswith("No worker of node laptop.fritz.box has probed it lately")
    other = command(home, "check", **variables, CONTAINER_MANAGER_NODE="laptop.example.org")
    assert other.returncode == 1
    assert "or set config.node of this host to the new name" in other.stdout


def _unknown(hosts: dict) -> dict | None:
    (edge,) = hosts["edges"]
    return edge["node"]["health"] if edge["node"]["health"]["status"] == "UNKNOWN" else None


def test_no_auth_makes_every_caller_an_admin_and_says_so(home: Path) -> None:
    with Served(home, "serve", "--port", "0", "--no-auth") as served:
        assert served.token is None
        answer = httpx.post(f"{served.url}/graphql", json={"query": "mutation { checkHealth { id } }"})
        assert "errors" not in answer.json()
    assert "--no-auth: every client" in served.stderr.read_text()


async def test_the_demo_moves_after_little_work(home: Path) -> None:
    served = await asyncio.to_thread(Served, home, "demo", "--port", "0", **UNMEASURED)
    with served:
        api = Api(served.url, served.token)
        seen = set()
        async with api.subscribe(EVENTS, after="0") as events:
            async for event in events:
                seen.add(event["kind"])
                if {"HOST_CREATED", "JOB_ROUTED", "JOB_STARTED"} <= seen:
                    break
        # Not by the clock: other tests may have both cores just then.
        assert _cpu_seconds(served.process.pid) < 5
        finished = {"kinds": ["JOB_FINISHED"]}
        async with api.subscribe(EVENTS, filters=finished) as events:
            assert (await anext(events))["host"]
        await api.http.aclose()
        assert served.terminate() == 0
    assert "Traceback" not in served.stderr.read_text()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_sigterm_completes_subscriptions_and_requests(home: Path) -> None:
    served = await asyncio.to_thread(Served, home)
    with served:
        api = Api(served.url, served.token)
        await api(CREATE_HOST, input=SIMULATED)
        running = await api(SUBMIT, input={"image": "x", "command": ["sleep 60"]})
        sse = asyncio.create_task(_sse(api))
        async with api.subscribe(EVENTS, after="0") as events:
            kinds = []
            async for event in events:
                kinds.append(event["kind"])
                if event["kind"] == "JOB_STARTED":
                    began = time.monotonic()
                    served.process.send_signal(signal.SIGTERM)
        assert kinds[-1] == "JOB_STARTED"
        assert "event: complete" in await sse
        await api.http.aclose()
        assert await asyncio.to_thread(served.process.wait, 10) == 0
        assert time.monotonic() - began < 10
    assert "Traceback" not in served.stderr.read_text(), served.stderr.read_text()
    # The job was given up as it was; the next start takes it over.
    again = await asyncio.to_thread(Served, home)
    with again:
        api = Api(again.url, served.token)
        assert (await api(JOB, id=running["id"]))["status"] == "RUNNING"
        await api("mutation($id: ID!) { cancelJob(id: $id) { __typename } }", id=running["id"])
        await eventually(lambda: _status(api, running["id"], "CANCELLED"))
        await api.http.aclose()


async def test_what_was_accepted_before_sigterm_is_answered(home: Path) -> None:
    served = await asyncio.to_thread(Served, home, CONTAINER_MANAGER_DRAIN_SECONDS="1")
    with served:
        url = httpx.URL(served.url)
        served.process.send_signal(signal.SIGTERM)
        async with httpx.AsyncClient(base_url=url) as client:
            await eventually(lambda: _says(client, "The service is stopping."))
        # It accepts although it stops; what the connection sends comes only when it does not accept any more.
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"GET /livez HTTP/1.1\r\n")
        await eventually(lambda: _refuses(url))
        writer.write(b"Host: localhost\r\n\r\n")
        assert b"200 OK" in await reader.readline()
        writer.close()
        assert await asyncio.to_thread(served.process.wait, 10) == 0


async def _says(client: httpx.AsyncClient, sentence: str) -> bool:
    return sentence in (await client.get("/readyz")).json()["failing"]


async def _refuses(url: httpx.URL) -> bool:
    try:
        _, writer = await asyncio.open_connection(url.host, url.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def _sse(api: Api) -> str:
    body = {"query": 'subscription { routingEvents(after: "0") { kind } }'}
    answer = await api.http.post("/graphql", json=body, headers={"Accept": "text/event-stream"})
    return answer.text


async def _status(api: Api, job_id: str, *wanted: str) -> dict | None:
    job = await api(JOB, id=job_id)
    return job if job["status"] in wanted else None


@pytest.fixture
def journal(other_engine: Engine) -> Iterator[Path]:
    with other_engine.journal() as path:
        yield path


async def test_killed_at_any_moment_nothing_is_lost_or_run_twice(
    home: Path, other_engine: Engine, journal: Path
) -> None:
    """Twelve jobs on a real engine while the service is killed with -9 five times."""
    served = await asyncio.to_thread(Served, home)
    token = served.token
    api = Api(served.url, token)
    # Labelled, because the machine's own engine may be a host as well.
    host = {"name": "e", "executorType": "DOCKER", "config": {"url": other_engine.url}, "labels": {"of": "the test"}}
    await api(CREATE_HOST, input={**host, "maxConcurrentJobs": 6})
    jobs = []
    for number in range(12):
        job = {
            "hostSelector": host["labels"],
            "image": "busybox:test",
            "command": ["sh", "-c", f"echo ran; sleep 0.5; exit {number % 3}"],
            "cpuLimit": 0.1,
        }
        jobs.append((await api(SUBMIT, input=job))["id"])
    for pause in (0.05, 0.3, 0.7, 0.2, 0.5):
        await asyncio.sleep(pause)  # the moment of the kill is the point
        served.kill()
        await api.http.aclose()
        served = await asyncio.to_thread(Served, home)
        api = Api(served.url, token)
    with served:
        for number, job_id in enumerate(jobs):
            job = await eventually(lambda job_id=job_id: _status(api, job_id, "SUCCEEDED", "FAILED"), 90)
            assert job["exitCode"] == number % 3, job
            assert [edge["node"]["text"] for edge in job["logs"]["edges"]] == ["ran"]
            query = "query($id: ID) { routingEvents(filters: {jobId: $id}, first: 100) { edges { node { kind } } } }"
            kinds = [edge["node"]["kind"] for edge in (await api(query, id=job_id))["edges"]]
            assert job["attempt"] == 1
            assert [kinds.count(k) for k in ("JOB_SUBMITTED", "JOB_STARTED", "JOB_FINISHED")] == [1, 1, 1], kinds
        await api.http.aclose()
        starts = journal.read_text().split()
        assert len(starts) == len(set(starts)) == 12, "each attempt ran in one container, once"
    assert [container for container in other_engine.containers() if container["State"] == "running"] == []


def test_the_local_engine_is_registered_or_the_log_says_what_to_do(home: Path) -> None:
    with Served(home) as served:
        query = "{ hosts { edges { node { name config health { status } } } } }"
        sentence = "There is no host to run jobs on"
        registered = eventually_sync(
            lambda: served.query(served.token, query)["edges"] or sentence in served.stderr.read_text(), 10
        )
        if registered is not True:
            assert registered[0]["node"]["name"] == "local"
            assert registered[0]["node"]["health"]["status"] == "HEALTHY"


@pytest.mark.skipif(Path("/var/run/docker.sock").exists(), reason="The Docker engine of this machine comes first.")
def test_a_local_podman_without_root_is_found(home: Path, podman: Podman) -> None:
    (home / "podman").mkdir()
    (home / "podman" / "podman.sock").symlink_to(podman.socket)
    with Served(home, XDG_RUNTIME_DIR=str(home)) as served:
        query = "{ hosts { edges { node { name engine } } } }"
        (edge,) = eventually_sync(lambda: served.query(served.token, query)["edges"], 10)
        assert edge["node"]["name"] == "local"
        assert edge["node"]["engine"].startswith("Podman ")


async def test_uvicorn_serves_the_same_application(home: Path) -> None:
    token = command(home, "token", "create", "--name", "me", "--role", "admin").stdout.strip()
    with (home / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "asgi:application", "--port", "0"],
            env=environment(home, CONTAINER_MANAGER_LOG_FORMAT="text"), cwd=home, stderr=err,
        )  # fmt: skip
    try:
        pattern = "Uvicorn running on "
        text = eventually_sync(
            lambda: (home / "err").read_text() if pattern in (home / "err").read_text() else None, 30
        )
        url = text.split(pattern)[1].split()[0]
        api = Api(url, token)
        assert (await api("{ eventCursor }")).isdigit()
        await api.http.aclose()
        async with websockets.connect(
            url.replace("http", "ws") + "/graphql", subprotocols=["graphql-transport-ws"]
        ) as ws:
            await ws.send(json.dumps({"type": "connection_init", "payload": api.headers}))
            assert json.loads(await ws.recv())["type"] == "connection_ack"
    finally:
        process.terminate()
        assert process.wait(10) in {0, -signal.SIGTERM}


def test_uvicorn_with_a_bad_environment_says_so_in_one_sentence(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "asgi:application", "--port", "0"],
        env=environment(home, CONTAINER_MANAGER_TYPO="x"), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "CONTAINER_MANAGER_TYPO is not a setting of container-manager; see the table in the README."
    )
