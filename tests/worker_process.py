"""A worker that stops or kills itself at a named step of a launch; run as a process of its own.

Reads from stdin, a line each: the step, the signal's number, and the job to submit as JSON. Prints `at STEP ID` when it
gets there, and `over` once it has given up the job; `missed` when it never got there.
"""

import asyncio
import json
import os
import signal
import sys
from types import SimpleNamespace

import django

django.setup()

from container_manager.control.dispatcher import Dispatcher  # noqa: E402
from container_manager.executors.cloudrun import CloudRunExecutor  # noqa: E402
from container_manager.executors.docker import DockerExecutor  # noqa: E402
from container_manager.service import Service, running  # noqa: E402
from container_manager.specs import read_job  # noqa: E402
from container_manager.store import transitions  # noqa: E402
from container_manager.store.transaction import Actor  # noqa: E402
from container_manager.store.writer import Writer  # noqa: E402
from tests.loops import loop_of  # noqa: E402

told = SimpleNamespace(step="", signal=0, job=0, known=asyncio.Event())


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def at(name: str, job_id: int) -> None:
    """Stop here, if it is the job that this process is to stop at: it takes up those of others, too."""
    if name != told.step:
        return
    # It may be claimed in the commit that submits it.
    await told.known.wait()
    if (name, job_id) == (told.step, told.job):
        told.step = ""
        say("at", name, told.job)
        os.kill(os.getpid(), told.signal)


def watched(kind: type, method: str) -> None:
    """Have a method of an executor tell when it is called and when it has answered."""
    original = getattr(kind, method)

    async def call(self: object, *arguments: object) -> object:
        job_id = getattr(arguments[0], "spec", arguments[0]).job_id
        await at(f"before {method}", job_id)
        answer = await original(self, *arguments)
        await at(f"after {method}", job_id)
        return answer

    setattr(kind, method, call)


async def write(self: Writer, unit: object, item: object) -> object:
    answer = await original_write(self, unit, item)
    if unit in {transitions.created, transitions.started, transitions.finished}:
        await at(f"after {unit.__name__}", item[0].job_id)
    return answer


original_write = Writer.write
Writer.write = write
for name in ("create", "start", "wait"):
    watched(DockerExecutor, name)
    watched(CloudRunExecutor, name)


def show_tasks() -> None:
    """Say where each task stands: for a test that waits in vain."""
    say(vars(told))
    for task in asyncio.all_tasks():
        say(task.get_name())
        place = task.get_coro()
        while (frame := getattr(place, "cr_frame", None) or getattr(place, "ag_frame", None)) is not None:
            say("   ", frame.f_code.co_qualname, frame.f_lineno)
            place = getattr(place, "cr_await", None) or getattr(place, "ag_await", None)


async def main() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, show_tasks)
    async with running() as service:
        say("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            told.known.clear()
            told.step, told.signal, job = json.loads(line)
            told.job = await claimed_here(service, job)
            told.known.set()
            await over(service)
            # On a busy machine it may have lost the job before it got there.
            say("missed" if told.step else "over")


async def claimed_here(service: Service, job: dict) -> int:
    """Submit the job so that it is routed, and claimed by this process, in the same commit."""
    while True:
        (submitted,) = await service.jobs.submit([read_job(job)], Actor("worker"))
        if submitted.status != "pending":
            return submitted.pk
        # Another process would route it later; the host may be unhealthy because its probes were frozen.
        await service.jobs.cancel(submitted.pk, Actor("worker"))
        await asyncio.sleep(0.2)


async def over(service: Service) -> None:
    dispatcher = loop_of(service, Dispatcher)
    while dispatcher.running:
        await asyncio.sleep(0.05)


asyncio.run(main())
