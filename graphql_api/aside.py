"""Runs heavy queries in a thread with an event loop of its own, so that they do not hold up the other requests."""

import asyncio
import atexit
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TypeVar

R = TypeVar("R")

AT_ONCE = 2
"""They share one thread; more at once would only take more memory."""

SWITCH_SECONDS = 0.001
"""How long a thread runs while another waits. Python's 5 ms would be added to each step of other requests."""


class _Loop:
    """An event loop in a thread, until the process ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._thread = threading.Thread(target=self._loop.run_forever, name="heavy-queries", daemon=True)
        self._thread.start()
        atexit.register(self._stop)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def run(self, work: Callable[[], Awaitable[R]]) -> R:
        async def in_turn() -> R:
            async with self._turns:
                return await work()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(in_turn(), self._loop))


@cache
def _heavy() -> _Loop:
    sys.setswitchinterval(SWITCH_SECONDS)
    return _Loop()


async def run(work: Callable[[], Awaitable[R]]) -> R:
    """Run it on the event loop for heavy queries, in the context of the caller, who can cancel it."""
    return await _heavy().run(work)
