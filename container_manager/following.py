"""What a job writes, from any line on: what is kept of it, then live until it has ended."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Container, Iterator, Sequence
from contextlib import aclosing
from itertools import islice

from container_manager.control.run import launch_spec
from container_manager.errors import NotFound
from container_manager.events import EventLog
from container_manager.executors.base import Execution
from container_manager.executors.exceptions import ExecutorError
from container_manager.executors.factory import ExecutorFactory
from container_manager.lifecycle import TERMINAL, JobStatus
from container_manager.models import ContainerJob
from container_manager.store import attempts, threads
from container_manager.store import events as event_store
from container_manager.store import jobs as job_store
from container_manager.store.attempts import LogCursor, LogLine, Part
from container_manager.store.dispatch import OUTPUT
from container_manager.store.events import Event

logger = logging.getLogger(__name__)

LINES_AT_ONCE = 500
LOOK_AGAIN_SECONDS = 2.0
"""When a job that runs is looked at again although nothing has been told of it: its host may answer again."""

OVERLAP_NS = 1_000_000_000
"""The order of lines is the container's, and what was stamped a little earlier may come a little later."""


class StoppingError(Exception):
    """The service stops before the job has ended; whoever follows it may go on elsewhere after the last line."""


async def follow(
    log: EventLog, factory: ExecutorFactory, nodes: Container[str], job_id: int, after: LogCursor | None
) -> AsyncGenerator[LogLine, None]:
    """The lines beyond `after`, until the job has ended and the last one is out.

    An engine that only another node reaches is not followed: its lines come when the attempt has ended.

    Raises:
        NotFound, StoppingError
    """
    changes = log.subscribe(await threads.read(event_store.newest), lambda event: event.job_id == job_id)
    change: asyncio.Future[Event | None] = asyncio.ensure_future(anext(changes, None))
    try:
        while True:
            job, parts = await threads.read(_with_output, job_id)
            if job is None:
                raise NotFound("There is no such job.")
            watched = job if _can_be_watched(job, nodes) else None
            async with aclosing(_lines(log, factory, watched, parts, after)) as lines:
                async for line in lines:
                    after = line.cursor
                    yield line
            if job.status in TERMINAL:
                return
            await asyncio.wait({change}, timeout=LOOK_AGAIN_SECONDS if watched else None)
            if change.done():
                if change.result() is None:
                    raise StoppingError
                change = asyncio.ensure_future(anext(changes, None))
    finally:
        change.cancel()
        await asyncio.gather(change, return_exceptions=True)
        await changes.aclose()


def _with_output(job_id: int) -> tuple[ContainerJob | None, list[Part]]:
    # The job first: should it end in between, its last lines are there already.
    job = job_store.one(job_id)
    if job is not None:
        # Nothing is launched from it, so its values stay encrypted.
        job.environment = {}
    return job, attempts.outputs([job_id])[job_id]


def _can_be_watched(job: ContainerJob, nodes: Container[str]) -> bool:
    here = job.host is not None and job.host.node in nodes
    return here and job.status == JobStatus.RUNNING


async def _lines(
    log: EventLog, factory: ExecutorFactory, job: ContainerJob | None, parts: Sequence[Part], after: LogCursor | None
) -> AsyncGenerator[LogLine, None]:
    """What is kept beyond `after`, then what the job is writing, if it can be watched."""
    kept = attempts.lines_after(parts, after)
    while page := await asyncio.to_thread(_take, kept):
        for line in page:
            after = line.cursor
            yield line
    if job is None:
        return
    here = after if after is not None and after[:2] == (job.attempt, OUTPUT) else None
    since = max(here.at_ns - OVERLAP_NS, 0) if here else 0
    numbered = attempts.Numbering(job.attempt, OUTPUT)
    try:
        executor = factory.get_executor(job)
        written = executor.follow(Execution(job.execution_id, launch_spec(job, factory.instance)), since)
        async with aclosing(written), aclosing(log.until_drained(written)) as lines:
            async for line in _beyond(here, (numbered(line) async for line in lines)):
                yield line
    except ExecutorError as error:
        logger.info("following job %s: %s", job.pk, error)


def _take(lines: Iterator[LogLine]) -> list[LogLine]:
    return list(islice(lines, LINES_AT_ONCE))


async def _beyond(here: LogCursor | None, lines: AsyncIterator[LogLine]) -> AsyncGenerator[LogLine, None]:
    """The lines after the one at `here`; those of a later time when it is not among them."""
    held: list[LogLine] | None = None if here is None else []
    async for line in lines:
        if held is None or here is None:
            yield line
        elif line.cursor == here:
            held = None
        elif line.line.at_ns <= here.at_ns + OVERLAP_NS:
            held.append(line)
        else:
            for entry in (*held, line):
                if entry.cursor > here:
                    yield entry
            held = None
    for entry in held or ():
        if here is not None and entry.cursor > here:
            yield entry
