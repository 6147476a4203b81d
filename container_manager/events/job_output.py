"""A job's output from any line on: first what is stored, then live until the job has ended."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Container, Iterator, Sequence
from contextlib import aclosing
from itertools import islice

from container_manager.aio import cancel_and_wait
from container_manager.domain.lifecycle import TERMINAL, JobStatus
from container_manager.errors import NO_JOB, NotFound
from container_manager.events.log import EventLog
from container_manager.executors.base import Execution
from container_manager.executors.exceptions import ExecutorError
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import ContainerJob
from container_manager.store import events as event_store
from container_manager.store import jobs as job_store
from container_manager.store import outputs, threads
from container_manager.store.events import Event
from container_manager.store.outputs import OUTPUT, LogCursor, LogLine, Part

logger = logging.getLogger(__name__)

LINES_AT_ONCE = 500
RECONNECT_SECONDS = 2.0
"""When the output of a running job is read again although no event came: its host may answer again."""

OVERLAP_NS = 1_000_000_000
"""How far time stamps may go back from line to line: lines keep the container's order, not that of time."""


class StoppingError(Exception):
    """The service stops before the job has ended. The client may continue at another process after its last line."""


async def follow(
    log: EventLog, factory: ExecutorFactory, nodes: Container[str], job_id: int, after: LogCursor | None
) -> AsyncGenerator[LogLine, None]:
    """The lines after `after`, until the job has ended and its last line was read.

    The output of a host that only another node reaches is not live: its lines come when the attempt has ended.

    Raises:
        NotFound: there is no such job.
        StoppingError: the service stops before the job has ended.
    """
    changes = log.subscribe(await threads.read(event_store.newest), lambda event: event.job_id == job_id)
    change: asyncio.Future[Event | None] = asyncio.ensure_future(anext(changes, None))
    try:
        while True:
            job, parts = await threads.read(_with_output, job_id)
            if job is None:
                raise NotFound(NO_JOB)
            watched = job if _can_be_watched(job, nodes) else None
            async with aclosing(_lines(log, factory, watched, parts, after)) as lines:
                async for line in lines:
                    after = line.cursor
                    yield line
            if job.status in TERMINAL:
                return
            await asyncio.wait({change}, timeout=RECONNECT_SECONDS if watched else None)
            if change.done():
                if change.result() is None:
                    raise StoppingError
                change = asyncio.ensure_future(anext(changes, None))
    finally:
        await cancel_and_wait(change)
        await changes.aclose()


def _with_output(job_id: int) -> tuple[ContainerJob | None, list[Part]]:
    # The job is read first: if it ends in between, its last lines are stored already.
    job = job_store.one(job_id)
    if job is not None:
        # No container is launched from this instance, so the values need not be decrypted.
        job.environment = {}
    return job, outputs.of_jobs([job_id])[job_id]


def _can_be_watched(job: ContainerJob, nodes: Container[str]) -> bool:
    here = job.host is not None and job.host.node in nodes
    return here and job.status == JobStatus.RUNNING


async def _lines(
    log: EventLog, factory: ExecutorFactory, job: ContainerJob | None, parts: Sequence[Part], after: LogCursor | None
) -> AsyncGenerator[LogLine, None]:
    """The stored lines after `after`, then the live ones of `job`, if it can be watched."""
    stored = await threads.read(outputs.lines_after, parts, after)
    while page := await threads.read(_take, stored):
        for line in page:
            after = line.cursor
            yield line
    if job is None:
        return
    here = after if after is not None and after[:2] == (job.attempt, OUTPUT) else None
    since = max(here.at_ns - OVERLAP_NS, 0) if here else 0
    numbered = outputs.Numbering(job.attempt, OUTPUT)
    try:
        executor = factory.get_executor(job)
        written = executor.follow(Execution(job.execution_id, factory.launch_spec(job)), since)
        async with aclosing(written), aclosing(log.until_drained(written)) as lines:
            async for line in _after(here, (numbered(line) async for line in lines)):
                yield line
    except ExecutorError as error:
        logger.info("the output of job %s cannot be followed: %s", job.pk, error, extra={"job": job.pk})


def _take(lines: Iterator[LogLine]) -> list[LogLine]:
    return list(islice(lines, LINES_AT_ONCE))


async def _after(here: LogCursor | None, lines: AsyncIterator[LogLine]) -> AsyncGenerator[LogLine, None]:
    """The lines after the one at `here`; if it is not among them, those of a later time."""
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
