"""How long after `submitJob` is sent does the container run, beside the engine's own create + start?

Both are measured in turn, in the same minutes, on the same engine:

    python -m benchmarks.submit_to_start [--jobs 20] [--socket /var/run/docker.sock] [--image busybox:test]

The service runs in a process of its own on a throw-away database. A job's start is the engine's own `StartedAt`,
seen on the machine's one clock. Prints a table and a line of JSON; milliseconds.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import aiohttp
from aiodocker import Docker

from container_manager.executors.base import LaunchSpec
from container_manager.executors.docker.settings import container_settings
from tests.client import CREATE_HOST, EVENTS, JOB, SUBMIT, Api
from tests.processes import Served

COMMAND = ["true"]


async def engine_alone(docker: Docker, image: str, number: int) -> float:
    """Milliseconds of create + start, called directly."""
    settings = container_settings(LaunchSpec(number, 1, "", image, COMMAND, {}, 256, 500), "none", "benchmark")
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
    print(f"{'ms, ' + str(options.jobs) + ' jobs one after the other':<40} {'p50':>7} {'min':>7} {'max':>7}")
    for name, values in figures.items():
        print(f"{name:<40} {statistics.median(values):7.1f} {min(values):7.1f} {max(values):7.1f}")
    over = statistics.median(starts) - statistics.median(alone)
    print(f"{'the service adds (medians)':<40} {over:7.1f}")
    print(
        json.dumps(
            {name: round(statistics.median(values), 1) for name, values in figures.items()} | {"adds": round(over, 1)}
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
