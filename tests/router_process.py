# ruff: noqa: E402, T201
"""A process that routes: `python -m tests.router_process NAME COUNT`.

Sixteen tasks submit COUNT jobs each, route what waits and end what was routed, all through one writer, as the service
does. Each acknowledged job is a line on stdout. A job with the image `freeze` stops the process inside the routing
transaction, like a machine that freezes.
"""

import asyncio
import os
import random
import signal
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "container_manager.settings")

import django

django.setup()

from django.utils import timezone

from container_manager.domain.lifecycle import JobStatus
from container_manager.models import ContainerJob
from container_manager.routing import checks
from container_manager.store import jobs, scheduling
from container_manager.store.transaction import Transaction, under_routing_lock
from tests.loops import running_writer

TASKS = 16
FROZEN = "freeze"

checks.register(
    checks.Check(
        "FREEZE",
        lambda job: job.strategy == "packed",
        lambda _, freezes: os.kill(os.getpid(), signal.SIGSTOP) or 0 if freezes and not thawed() else 0,
        lambda _: "",
        lambda _: "",
    )
)
_stops: list[int] = []


def thawed() -> bool:
    """Stop only once."""
    _stops.append(1)
    return len(_stops) > 1


@under_routing_lock
def end_some(tx: Transaction, items: list[int]) -> list[int]:
    """The oldest routed jobs have succeeded, as if they had run."""
    ended = list(
        ContainerJob.objects.filter(status=JobStatus.ROUTED).order_by("pk").values_list("pk", flat=True)[: sum(items)]
    )
    ContainerJob.objects.filter(pk__in=ended).update(status=JobStatus.SUCCEEDED, finished_at=timezone.now())
    return [len(ended)] * len(items)


async def main(name: str, count: int) -> None:
    dice = random.Random(name)

    async def task(number: int) -> None:
        for turn in range(count):
            job = ContainerJob(
                image="x",
                name=f"{name}-{number}-{turn}",
                memory_limit=dice.choice([100, 100, 300, 900]),
                cpu_limit=dice.choice([0.1, 0.5]),
                priority=dice.randint(0, 1),
                strategy="packed" if name == FROZEN and (number, turn) == (0, 0) else "weighted",
            )
            (answer,) = await writer.write(jobs.submit, jobs.Submission([job]))
            print(answer.pk, flush=True)
            if dice.random() < 0.3:
                await writer.write(end_some, dice.randint(1, 4))
            if dice.random() < 0.2:
                await writer.write(scheduling.route_pending, None)

    async with running_writer() as writer:
        results = await asyncio.gather(
            *(task(number) for number in range(1 if name == FROZEN else TASKS)), return_exceptions=True
        )
    for result in results:
        if isinstance(result, Exception):
            print(f"error {type(result).__name__}: {result}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
