"""Two nodes, each with an engine of its own behind a unix socket, and one database."""

from pathlib import Path

import psycopg

from tests.client import CREATE_HOST, Api
from tests.engines import Engine
from tests.eventually import eventually
from tests.jobs import ended, has_status, running
from tests.postgres import Postgres
from tests.processes import UNMEASURED, Served

KEY = "only-for-tests-only-for-tests-only-for-tests"
OWNER = "SELECT lease_owner FROM container_manager_containerjob WHERE name = %s"
IDS = "{ hosts { edges { node { id name } } } }"
UPDATE = "mutation($id: ID!, $input: HostPatch!) { updateHost(id: $id, input: $input) { __typename } }"
HEALTH = "{ hosts { edges { node { name health { status } } } } }"


def serve(home: Path, url: str, node: str, role: str) -> Served:
    variables = {
        "CONTAINER_MANAGER_DATABASE_URL": url, "CONTAINER_MANAGER_SECRET_KEY": KEY, "CONTAINER_MANAGER_NODE": node,
        "CONTAINER_MANAGER_LEASE_SECONDS": "3", "CONTAINER_MANAGER_PROBE_INTERVAL_SECONDS": "1",
    }  # fmt: skip
    return Served(home, "serve", "--port", "0", "--role", role, **variables, **UNMEASURED)


async def health_of(api: Api) -> dict[str, str]:
    return {edge["node"]["name"]: edge["node"]["health"]["status"] for edge in (await api(HEALTH))["edges"]}


async def submit(api: Api, node: str, seconds: int) -> str:
    command = ["sh", "-c", f"sleep {seconds}; echo on {node}"]
    wishes = {"hostSelector": {"node": node}, "memoryLimitMb": 32, "cpuLimit": 0.1}
    return (await api.submit(name=node, command=command, **wishes))["id"]


async def test_each_node_runs_the_jobs_of_its_own_engine(
    cluster: Postgres, engine: Engine, other_engine: Engine, tmp_path: Path
) -> None:
    url = cluster.database()
    engines = {"node-a": engine, "node-b": other_engine}
    with serve(tmp_path / "api", url, "elsewhere", "api") as front:
        api = Api(front.url, front.token)
        workers = {node: serve(tmp_path / node, url, node, "worker") for node in engines}
        try:
            for node, its_engine in engines.items():
                config = {"url": its_engine.url, "node": node}
                host = {"name": node, "executorType": "DOCKER", "labels": {"node": node}, "config": config}
                assert (await api(CREATE_HOST, input=host))["__typename"] == "ExecutorHost"
            # The API reaches neither engine: each worker has probed its own.
            await eventually(lambda: _are(api, {"node-a": "HEALTHY", "node-b": "HEALTHY"}), 30)
            jobs = {node: await submit(api, node, 3) for node in engines}
            for node, job_id in jobs.items():
                await running(api, job_id)
                with psycopg.connect(url) as connection:
                    (owner,) = connection.execute(OWNER, [node]).fetchone()
                assert owner.startswith(f"{node}/")
            for node, job_id in jobs.items():
                job = await ended(api, job_id)
                assert (job["status"], job["host"]["name"]) == ("SUCCEEDED", node)

            # A host stays with its node when a process of another node changes it.
            hosts = {edge["node"]["name"]: edge["node"]["id"] for edge in (await api(IDS))["edges"]}
            for node, its_engine in engines.items():
                change = {"config": {"url": its_engine.url, "max_launches": 3}, "maxConcurrentJobs": 5}
                assert (await api(UPDATE, id=hosts[node], input=change))["__typename"] == "ExecutorHost"
            for node in engines:
                job = await ended(api, await submit(api, node, 0))
                assert (job["status"], job["host"]["name"]) == ("SUCCEEDED", node)
                assert [edge["node"]["text"] for edge in job["logs"]["edges"]] == [f"on {node}"]

            # A node that dies: its host becomes UNKNOWN and its job waits; no other worker touches them.
            left = await submit(api, "node-a", 2)
            await running(api, left)
            workers["node-a"].kill()
            await eventually(lambda: _are(api, {"node-a": "UNKNOWN", "node-b": "HEALTHY"}), 30)
            other = await ended(api, await submit(api, "node-b", 0))
            assert other["status"] == "SUCCEEDED"
            assert await has_status(api, left, "RUNNING")

            # The node comes back, and harvests what has ended meanwhile.
            workers["node-a"] = serve(tmp_path / "again", url, "node-a", "worker")
            job = await ended(api, left)
            assert (job["status"], job["attempt"]) == ("SUCCEEDED", 1)
            assert [edge["node"]["text"] for edge in job["logs"]["edges"]] == ["on node-a"]
        finally:
            for worker in workers.values():
                worker.__exit__()
        await api.http.aclose()


async def _are(api: Api, expected: dict[str, str]) -> bool:
    return await health_of(api) == expected
