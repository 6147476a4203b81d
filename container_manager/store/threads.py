"""The one way from async code to the ORM: threads of our own, each with its own lasting connection."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import close_old_connections, connection

P = ParamSpec("P")
R = TypeVar("R")

READERS = 4
CHECK_AFTER_SECONDS = 1.0
"""How long a connection may rest without being checked before its next use."""

_thread = threading.local()

_writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
_readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")


async def read(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a read in one of the readers' threads."""
    return await _run(_readers, work, *args, **kwargs)


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
