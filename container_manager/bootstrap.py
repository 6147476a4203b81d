"""What a new service begins with: the local Docker engine, or a simulated fleet."""

import asyncio
import logging
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

from container_manager.errors import Conflict, UserError
from container_manager.models import HealthStatus
from container_manager.service import Service
from container_manager.specs import read_job
from container_manager.store import hosts as host_store
from container_manager.store import threads, tokens
from container_manager.store.transaction import Actor

logger = logging.getLogger(__name__)

SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")
LOCAL = "local"
STARTER = Actor("serve")


async def register_local_engine(service: Service) -> None:
    """With no host yet, register the local Docker engine if it answers; else say what to do."""
    if not await threads.read(tokens.listed):
        logger.warning("There is no token yet: make one with `container-manager token create --name me --role admin`.")
    if await threads.read(host_store.any_exist):
        return
    for path in SOCKETS:
        if not await asyncio.to_thread(Path(path).is_socket):
            continue
        values = {"name": LOCAL, "executor_type": "docker", "config": {"url": f"unix://{path}"}}
        report = await service.probe_host(values)
        if report.status == HealthStatus.HEALTHY:
            with suppress(Conflict):
                # Else another process of ours has just done it.
                await service.create_host(values, STARTER)
            logger.info("The local Docker engine at %s is registered as host %r.", path, LOCAL)
            return
        logger.warning("The Docker engine at %s cannot be used: %s", path, report.error)
        break
    logger.warning(
        "There is no host to run jobs on: start a Docker engine and this service again, "
        "or create a host with the mutation createHost."
    )


# ------------------------------------------------------------------ the demonstration

FLEET: list[dict[str, Any]] = [
    {"name": "frankfurt-1", "region": "eu-central", "routing_weight": 100, "max_concurrent_jobs": 8},
    {"name": "frankfurt-2", "region": "eu-central", "routing_weight": 50, "max_concurrent_jobs": 6},
    {"name": "iowa-1", "region": "us-central", "routing_weight": 100, "max_concurrent_jobs": 8},
    {
        "name": "iowa-gpu",
        "region": "us-central",
        "routing_weight": 20,
        "max_concurrent_jobs": 2,
        "labels": {"gpu": "yes"},
    },
    {"name": "tokyo-1", "region": "asia-east", "routing_weight": 80, "max_concurrent_jobs": 4},
    {"name": "overflow", "region": "us-central", "routing_weight": 0, "max_concurrent_jobs": 20},
]
WORK = ("resize-images", "nightly-report", "train-model", "import-orders", "send-invoices", "index-search")
DEMONSTRATOR = Actor("demo")


async def run_demonstration(service: Service) -> None:
    """A simulated fleet and a stream of jobs, without end."""
    for number, host in enumerate(FLEET):
        config = {"accept": "any", "launch_ms": 50 + 40 * number, "fail_launch": 0.02, "seed": number}
        values = {"executor_type": "simulated", "max_memory_mb": 16384, "max_cpu_cores": 16.0, **host, "config": config}
        await service.create_host(values, DEMONSTRATOR)
    rng = random.Random()  # noqa: S311 - a demonstration
    while True:
        try:
            await service.submit([read_job(_some_work(rng))], DEMONSTRATOR)
        except UserError as error:
            logger.warning("The demonstration: %s", error)
        await asyncio.sleep(rng.expovariate(3))


def _some_work(rng: random.Random) -> dict[str, Any]:
    name = rng.choice(WORK)
    seconds = round(rng.uniform(0.5, 8), 1)
    exit_code = 1 if rng.random() < 0.08 else 0
    job: dict[str, Any] = {
        "image": f"registry.example/{name}:1.{rng.randrange(9)}",
        "name": name,
        "command": [f"echo {name} begins; sleep {seconds}; echo {name} done; exit {exit_code}"],
        "memory_limit_mb": rng.choice([256, 512, 1024, 2048]),
        "cpu_limit": rng.choice([0.5, 1, 2]),
        "priority": rng.choice([0, 0, 0, 10]),
        "region_preference": rng.choice(["", "", "eu-central", "us-central", "asia-east"]),
        "labels": {"team": rng.choice(["search", "billing", "ml"])},
    }
    if name == "train-model":
        job["host_selector"] = {"gpu": "yes"}
    return job
