"""The demonstration: a simulated fleet and an endless stream of jobs."""

import asyncio
import logging
import random
from typing import Any

from container_manager.errors import UserError
from container_manager.service import Service
from container_manager.specs import read_job
from container_manager.store.transaction import Actor

logger = logging.getLogger(__name__)

FLEET: list[dict[str, Any]] = [
    {"name": "frankfurt-1", "region": "eu-central", "routing_weight": 100, "max_concurrent_jobs": 8},
    {"name": "frankfurt-2", "region": "eu-central", "routing_weight": 50, "max_concurrent_jobs": 6},
    {"name": "iowa-1", "region": "us-central", "routing_weight": 100, "max_concurrent_jobs": 8},
    {
        "name": "iowa-gpu",
        "region": "us-central",
        "routing_weight": 20,
        "max_concurrent_jobs": 3,
        "labels": {"gpu": "yes"},
    },
    {"name": "tokyo-1", "region": "asia-east", "routing_weight": 80, "max_concurrent_jobs": 4},
    # Launches keep failing here, so it is ejected now and then.
    {"name": "tokyo-2", "region": "asia-east", "routing_weight": 40, "max_concurrent_jobs": 4, "fail_launch": 0.9},
    {"name": "overflow", "region": "us-central", "routing_weight": 0, "max_concurrent_jobs": 20},
]
IMPOSSIBLE: list[dict[str, Any]] = [
    {"name": "render-film", "memory_limit_mb": 65_536},
    {"name": "train-large-model", "host_selector": {"gpu": "h100"}},
    {"name": "close-books", "region_preference": "eu-north", "region_required": True},
]
"""What no host of the fleet can take."""

WORK = ("resize-images", "nightly-report", "train-model", "import-orders", "send-invoices", "index-search")
DEMONSTRATOR = Actor("demo")


async def run_demonstration(service: Service) -> None:
    """Create a simulated fleet and submit jobs to it, without end."""
    for number, host in enumerate(FLEET):
        fails = host.get("fail_launch", 0.02)
        config = {"accept": "any", "launch_ms": 50 + 40 * number, "fail_launch": fails, "seed": number}
        values = {"executor_type": "simulated", "max_memory_mb": 16384, "max_cpu_cores": 16.0, **host, "config": config}
        values.pop("fail_launch", None)
        await service.hosts.create(values, DEMONSTRATOR)
    rng = random.Random()  # noqa: S311 - a demonstration
    while True:
        try:
            await service.jobs.submit([read_job(_random_job(rng))], DEMONSTRATOR)
        except UserError as error:
            logger.warning("a job of the demonstration was refused: %s", error)
        await asyncio.sleep(rng.expovariate(3))


def _random_job(rng: random.Random) -> dict[str, Any]:
    name = rng.choice(WORK)
    seconds = round(rng.uniform(0.5, 8), 1)
    exit_code = 1 if rng.random() < 0.15 else 0
    job: dict[str, Any] = {
        "image": f"registry.example/{name}:1.{rng.randrange(9)}",
        "name": name,
        "command": [f"echo {name} begins; sleep {seconds}; echo {name} done; exit {exit_code}"],
        "memory_limit_mb": rng.choice([256, 512, 1024, 2048]),
        "cpu_limit": rng.choice([0.5, 1, 2]),
        "priority": rng.choice([0, 0, 0, 10]),
        "region_preference": rng.choice(["", "", "eu-central", "us-central", "asia-east"]),
        "labels": {"team": rng.choice(["search", "billing", "ml"])},
        "max_attempts": rng.choice([1, 1, 3]),
        "queue_timeout_seconds": 120,
    }
    if name == "train-model":
        job["host_selector"] = {"gpu": "yes"}
    if rng.random() < 0.02:
        job |= rng.choice(IMPOSSIBLE)
    return job
