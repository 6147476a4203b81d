"""How long after `submitJob` is sent does the container run, compared with the engine's own create and start?

Both are measured in turn, in the same minutes, on the same engine:

    python -m benchmarks.submit_to_start [--jobs 20] [--socket /var/run/docker.sock] [--image busybox:test]

The service runs in its own process on a temporary database. A job's start is the engine's own `StartedAt`,
by the same clock. Prints milliseconds.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import aiohttp
from aiodocker import Docker

from benchmarks import fleet
from container_manager.executors.base import LaunchSpec
from container_manager.executors.configs import DockerConfig
from container_manager.executors.docker.settings import container_settings
from tests.client import CREATE_HOST, EVENTS, JOB, SUBMIT, Api
from tests.processes import Served

COMMAND = ["true"]


async def engine_alone(docker: Docker, image: str, number: int) -> float:
    """Milliseconds of create + start, called directly."""
    settings = container_settings(LaunchSpec(number, 1, "", image, COMMAND, {}, 256, 500), DockerConfig(), "benchmark")
    began = time.perf_counter()
    container = await docker.containers.create(settings, name=f"benchmark-{number}")
    await container.start()
    took = time.perf_counter() - began
    await container.wait()
    await container.delete()
    return took * 1000


async def through_the_service(api: Api, events: AsyncIterator[dict], image: str) -> tuple[float, float]:
    """Milliseconds from sending the mutation to the answer, and to the engine's answer to `start`."""
    began = time.time()
    job = await api(SUBMIT, input={"image": image, "command": COMMAND})
    answered = time.time()
    assert job["status"] == "ROUTED", job
    async for event in events:
        if event["kind"] == "JOB_FINISHED":
            break
    found = await api(JOB, id=job["id"])
    assert found["status"] == "SUCCEEDED", found
    started = datetime.fromisoformat(found["startedAt"]).timestamp()
    return (answered - began) * 1000, (started - began) * 1000


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--socket", default="/var/run/docker.sock")
    parser.add_argument("--image", default="busybox:test")
    parser.add_argument("--json", default="", help="write the figures to this file, - for stdout")
    options = parser.parse_args()

    connector = aiohttp.UnixConnector(options.socket, limit=0)
    docker = Docker("unix://localhost", connector=connector)
    with tempfile.TemporaryDirectory() as home, Served(Path(home)) as served:
        api = Api(served.url, served.token)
        host = {"name": "engine", "executorType": "DOCKER", "config": {"url": f"unix://{options.socket}"}}
        if not (await api("{ hosts { edges { node { name } } } }"))["edges"]:
            await api(CREATE_HOST, input=host)
        alone, answers, starts = [], [], []
        async with api.subscribe(EVENTS) as events:
            for number in range(options.jobs):
                alone.append(await engine_alone(docker, options.image, number))
                answer, start = await through_the_service(api, events, options.image)
                answers.append(answer)
                starts.append(start)
        await api.http.aclose()
    await docker.close()
    await connector.close()
    figures = {
        "engine create + start": alone,
        "submitJob to its answer": answers,
        "submitJob to started": starts,
    }
    table = fleet.Table()
    for name, values in figures.items():
        table.row(name, **{"ms p50": statistics.median(values), "min": min(values), "max": max(values)})
    added = statistics.median(starts) - statistics.median(alone)
    table.row("the service adds (medians)", **{"ms p50": added})
    if options.json:
        table.as_json(options.json)


if __name__ == "__main__":
    asyncio.run(main())
