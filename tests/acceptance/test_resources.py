"""What a service needs while jobs are large: memory and connections stay bounded."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.client import EVENTS, Api
from tests.engines import Engine
from tests.eventually import eventually
from tests.processes import Served

MEGABYTE = 1_000_000
LOGS = "subscription($id: ID!) { jobLogs(id: $id) { stream text } }"
CREATE = (
    """mutation($input: HostInput!) { createHost(input: $input) { ... on ExecutorHost { name health { status } } } }"""
)
QUERY = "query($id: ID!) { job(id: $id) { status message error exitCode logs(first: 1000) { edges { node { stream text } } } } }"


@pytest.fixture
def served(tmp_path: Path, engine: Engine) -> Iterator[Served]:
    with Served(tmp_path, CONTAINER_MANAGER_LOG_LEVEL="warning") as process:
        config = {"url": engine.url}
        host = process.query(
            process.token, CREATE, input={"name": "e", "executorType": "DOCKER", "config": config, "maxCpuCores": 100.0}
        )
        assert host["health"]["status"] == "HEALTHY"
        yield process
        assert process.terminate() == 0


@pytest.fixture
async def api(served: Served) -> AsyncIterator[Api]:
    api = Api(served.url, served.token)
    yield api
    await api.http.aclose()


def most_memory(served: Served) -> int:
    """The most that the process has ever had, in bytes."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def connections(served: Served, engine: Engine) -> int:
    """How many connections the engine has with its clients."""
    with open("/proc/net/unix") as sockets:
        return sum(line.rstrip().endswith(str(engine.socket)) for line in sockets)


async def ended(api: Api, job_id: str, timeout: float = 60) -> dict:
    async def look() -> dict | None:
        job = await api(QUERY, id=job_id)
        return job if job["status"] in {"SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELLED"} else None

    return await eventually(look, timeout)


async def test_two_hundred_thousand_lines_in_five_seconds(api: Api, served: Served, engine: Engine) -> None:
    script = "for i in 0 1 2 3 4; do seq $((i * 40000 + 1)) $((i * 40000 + 40000)); sleep 1; done"
    numbers = itertools.count(1)
    before = connections(served, engine)
    job = await api.submit(command=["sh", "-c", script], cpuLimit=2.0)
    async with api.subscribe(LOGS, id=job["id"]) as lines:
        async for line in lines:
            assert line["text"] == str(next(numbers)), "a follower gets all of it"
            if line["text"] == "60000":
                break
    done = await ended(api, job["id"])
    assert done["status"] == "SUCCEEDED"
    first = [edge["node"]["text"] for edge in done["logs"]["edges"]]
    assert first == [str(n) for n in range(1, 1001)], "what is kept begins at the beginning"
    assert most_memory(served) < 150 * MEGABYTE
    await eventually(lambda: connections(served, engine) <= before + 5, 10, "connections are given back")


async def test_a_large_image_is_pulled_with_progress(api: Api, served: Served, engine: Engine) -> None:
    registry = engine.serve_registry(5002)
    image = f"{registry}/large:1"
    await asyncio.to_thread(engine.push, image, ballast=500 * MEGABYTE)
    cursor = await api("{ eventCursor }")
    job = await api.submit(image=image, command=["echo", "here"])
    async with api.subscribe(EVENTS, after=cursor, filters={"kinds": ["JOB_PROGRESS", "JOB_LAUNCHED"]}) as events:
        told = []
        async for event in events:
            if event["kind"] == "JOB_LAUNCHED":
                break
            told.append(event["message"])
            if len(told) == 2:
                # The pull may have ended meanwhile.
                shown = (await api(QUERY, id=job["id"]))["message"]
                assert shown == "" or f" image '{image}' to host e" in shown
    assert told[0] == f"Pulling image '{image}' to host e."
    assert any("of 1 layers" in message and "of 50" in message for message in told), told
    done = await ended(api, job["id"])
    assert (done["status"], done["message"]) == ("SUCCEEDED", "")
    lines = [edge["node"]["text"] for edge in done["logs"]["edges"]]
    assert lines[0] == f"[container-manager: Pulling image '{image}' to host e.]"
    assert lines[1].startswith(f"[container-manager: Pulled image '{image}' to host e in ")
    assert lines[2:] == ["here"]
    assert most_memory(served) < 150 * MEGABYTE
    assert os.path.exists(engine.socket)
