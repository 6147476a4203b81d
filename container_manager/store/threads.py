"""The only way from async code to the ORM: threads of this module, each with a database connection that lasts."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections, connection

P = ParamSpec("P")
R = TypeVar("R")

READERS = 4
CHECK_AFTER_SECONDS = 1.0
"""How long a connection may be idle before it is checked ahead of its next use."""

DATABASE_AWAY = (InterfaceError, OperationalError)
"""The errors of reads and writes while the database does not answer."""

_thread = threading.local()

_writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
_readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
_fanout = ThreadPoolExecutor(1, thread_name_prefix="store-fanout")
_brief = ThreadPoolExecutor(1, thread_name_prefix="store-brief")
_reads_in: ContextVar[ThreadPoolExecutor] = ContextVar("reads_in", default=_readers)


async def read(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a read in a reader's thread."""
    return await _run(_reads_in.get(), work, *args, **kwargs)


async def read_briefly(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a read that takes no time in a thread of its own, so that slow reads of clients do not hold it up.

    Used for tokens and readiness.
    """
    return await _run(_brief, work, *args, **kwargs)


@contextmanager
def fanout_thread() -> Iterator[None]:
    """Let tasks that are started in the block read in a thread of its own.

    Used for reads on behalf of many subscribers at once: they must not occupy the readers, and two of them in parallel
    would only wait for each other.
    """
    before = _reads_in.set(_fanout)
    try:
        yield
    finally:
        _reads_in.reset(before)


async def write(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a whole transaction in the writer's thread."""
    return await _run(_writer, work, *args, **kwargs)


async def _run(pool: ThreadPoolExecutor, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    # Not loop.run_in_executor: callers in other threads have event loops of their own.
    return await asyncio.wrap_future(pool.submit(_hop, partial(work, *args, **kwargs)))


def _hop(work: Callable[[], R]) -> R:
    # In the same hop as the work: a connection that a database restart has broken is replaced before its next use.
    close_old_connections()
    if time.monotonic() < getattr(_thread, "used", 0) + CHECK_AFTER_SECONDS:
        # It was used a moment ago; checking it would cost a round trip.
        connection.health_check_done = True  # type: ignore[attr-defined]
    try:
        return work()
    finally:
        close_old_connections()
        _thread.used = time.monotonic()
