"""Control loops on their own, without a supervisor."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from container_manager.aio import background
from container_manager.control.supervisor import Loop
from container_manager.events.log import EventLog
from container_manager.service import Service
from container_manager.store.writer import Writer

L = TypeVar("L")


@asynccontextmanager
async def running_loop(loop: Loop) -> AsyncIterator[None]:
    """Run a loop beside the block, then stop it as the supervisor does."""
    try:
        async with background(loop.run(lambda: None)):
            yield
    finally:
        await loop.stop()


@asynccontextmanager
async def running_writer() -> AsyncIterator[Writer]:
    """A writer that commits."""
    writer = Writer()
    writer.open()
    async with running_loop(writer):
        yield writer


@asynccontextmanager
async def running_log(*arguments: Any) -> AsyncIterator[EventLog]:
    """An event log that reads."""
    log = EventLog(*arguments)
    await log.open()
    async with running_loop(log):
        yield log


def loop_of(service: Service, kind: type[L]) -> L:
    """The service's control loop of this class."""
    (loop,) = [loop for loop in service.process.loops if isinstance(loop, kind)]
    return loop
