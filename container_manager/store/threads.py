"""The one way from async code to the ORM: threads of our own, each with its own lasting connection."""

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
"""How long a connection may rest without being checked before its next use."""

DATABASE_AWAY = (InterfaceError, OperationalError)
"""What a read or a write raises while the database does not answer."""

_thread = threading.local()

_writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
_readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
_teller = ThreadPoolExecutor(1, thread_name_prefix="store-teller")
_reads_in: ContextVar[ThreadPoolExecutor] = ContextVar("reads_in", default=_readers)


async def read(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a read in one of the readers' threads."""
    return await _run(_reads_in.get(), work, *args, **kwargs)


@contextmanager
def apart() -> Iterator[None]:
    """Have what is begun inside read in a thread of its own.

    For what is read for many subscribers at once: it must not keep others from the readers, and two of its reads side
    by side would only wait for each other.
    """
    before = _reads_in.set(_teller)
    try:
        yield
    finally:
        _reads_in.reset(before)


async def write(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a whole transaction in the writer's thread."""
    return await _run(_writer, work, *args, **kwargs)


async def _run(pool: ThreadPoolExecutor, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    # Not loop.run_in_executor: this also serves callers in other threads, each with a loop of its own.
    return await asyncio.wrap_future(pool.submit(_hop, partial(work, *args, **kwargs)))


def _hop(work: Callable[[], R]) -> R:
    # Inside the same hop: a connection that a database restart has broken is replaced before its next use.
    close_old_connections()
    if time.monotonic() < getattr(_thread, "used", 0) + CHECK_AFTER_SECONDS:
        # It has just worked; to ask it first would be a journey of its own.
        connection.health_check_done = True  # type: ignore[attr-defined]
    try:
        return work()
    finally:
        close_old_connections()
        _thread.used = time.monotonic()
