"""The only way from async code to the ORM: threads of this module, each with a database connection that lasts."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from container_manager.database import ALIAS

P = ParamSpec("P")
R = TypeVar("R")

READERS = 4
CHECK_AFTER_SECONDS = 1.0
"""How long a connection may be idle before it is checked ahead of its next use."""

TOO_LONG = "The database took too long over this; ask for less at a time."

INTERRUPT_SECONDS = 5.0
"""The time that PostgreSQL has to accept the cancellation of a statement."""

DATABASE_AWAY = (InterfaceError, OperationalError)
"""The errors of reads and writes while the database does not answer."""


class TookTooLong(OperationalError):
    """A statement was interrupted because it took longer than its lane allows."""


class Lane(NamedTuple):
    """Threads for one purpose, and the seconds after which what they do is interrupted."""

    threads: ThreadPoolExecutor
    seconds: float | None


def _lane(name: str, threads: int, seconds: float | None) -> Lane:
    return Lane(ThreadPoolExecutor(threads, thread_name_prefix=f"store-{name}"), seconds)


_thread = threading.local()
_opened: list[BaseDatabaseWrapper] = []
_writer = _lane("writer", 1, 60.0)
_readers = _lane("reader", READERS, 20.0)
_fanout = _lane("fanout", 1, 20.0)
_brief = _lane("brief", 1, 5.0)
_pages = _lane("pages", 1, 20.0)
_reads_in: ContextVar[Lane] = ContextVar("reads_in", default=_readers)
_interrupting = ThreadPoolExecutor(1, thread_name_prefix="store-interrupting")
_computing = ThreadPoolExecutor(1, thread_name_prefix="computing")
_preparing = ThreadPoolExecutor(2, thread_name_prefix="preparing")


async def read(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a read in a reader's thread. A caller that is cancelled interrupts it.

    Raises:
        TookTooLong: the database took too long over a statement.
    """
    return await _run(_reads_in.get(), partial(work, *args, **kwargs))


async def read_briefly(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a read that takes no time in a thread of its own, so that slow reads of clients do not hold it up.

    Used for tokens and readiness.
    """
    return await _run(_brief, partial(work, *args, **kwargs))


async def make_page(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Make a page of Django's admin in a thread of its own: it may read long, and wait for what readers do."""
    return await _run(_pages, partial(work, *args, **kwargs))


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
    return await _run(_writer, partial(work, *args, **kwargs))


async def prepare(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run what comes before all transactions in the writer's thread, however long it takes."""
    return await _run(_writer._replace(seconds=None), partial(work, *args, **kwargs))


async def compute(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run long work without the database in a thread of its own, beside the event loop and the reads."""
    return await asyncio.wrap_future(_computing.submit(partial(work, *args, **kwargs)))


async def prepare_request(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Check a document or its variables, in threads that no plan occupies."""
    return await asyncio.wrap_future(_preparing.submit(partial(work, *args, **kwargs)))


async def _run(lane: Lane, work: Callable[[], R]) -> R:
    running = _Running(work)
    # Not loop.run_in_executor: callers in other threads have event loops of their own.
    future = lane.threads.submit(running)

    def give_up() -> None:
        if not future.cancel():
            running.interrupt_soon()

    overdue = None
    if lane.seconds is not None:
        overdue = asyncio.get_running_loop().call_later(lane.seconds, give_up)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            raise TookTooLong(TOO_LONG) from None
        if lane is not _writer:
            running.interrupt_soon()
        raise
    finally:
        if overdue is not None:
            overdue.cancel()


def _own_connection() -> BaseDatabaseWrapper:
    """This thread's connection, which lasts although a project may close those of its requests."""
    connection = connections[ALIAS]
    if not hasattr(_thread, "used"):
        known = connection.settings_dict
        # A pool is for requests, each of which gives its connection back.
        options = {name: value for name, value in known["OPTIONS"].items() if name != "pool"}
        lasting = {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True, "OPTIONS": options}
        connection.settings_dict = {**known, **lasting}
        _opened.append(connection)
    return connection


def close_connections() -> None:
    """Close the connections of all threads, while nothing uses them; the next use of a thread opens a new one."""
    for connection in _opened:
        connection.inc_thread_sharing()
        try:
            connection.close()
        finally:
            connection.dec_thread_sharing()


class _Running(Generic[R]):
    """Work in a thread, which another thread can interrupt.

    The client interrupts, because a time-out of the database is a setting of its session, which a connection pool
    in transaction mode does not keep, or costs a round trip for each statement.
    """

    def __init__(self, work: Callable[[], R]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._connection: Any = None
        self._is_over = self._is_interrupted = False

    def __call__(self) -> R:
        connection = _own_connection()
        # In the same hop as the work: a connection that a database restart has broken is replaced before its next use.
        close_old_connections()
        if time.monotonic() < getattr(_thread, "used", 0) + CHECK_AFTER_SECONDS:
            # It was used a moment ago; checking it would cost a round trip.
            connection.health_check_done = True  # type: ignore[attr-defined]
        try:
            self._connection = connection
            return self._work()
        except OperationalError as error:
            if self._is_interrupted:
                raise TookTooLong(TOO_LONG) from error
            raise
        finally:
            # Waits for an interruption that has begun, so that it does not reach the thread's next work.
            with self._lock:
                self._is_over = True
            close_old_connections()
            _thread.used = time.monotonic()

    def interrupt_soon(self) -> None:
        """Interrupt the work without waiting for it: cancelling a statement of PostgreSQL takes a connection."""
        _interrupting.submit(self._interrupt)

    def _interrupt(self) -> None:
        self._is_interrupted = True
        with self._lock:
            raw = getattr(self._connection, "connection", None)
            if self._is_over or raw is None:
                return
            if self._connection.vendor == "postgresql":
                raw.cancel_safe(timeout=INTERRUPT_SECONDS)
            else:
                raw.interrupt()
