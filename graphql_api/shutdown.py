"""Completing subscriptions before the server shuts down."""

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from container_manager.aio import start_detached
from container_manager.process import Process

SAME_SIGNAL_SECONDS = 1.0
"""A terminal and a service manager signal all processes, and the parent of several workers signals them once more."""


def drain_on_signals(process: Process, seconds: float) -> None:
    """On SIGTERM and Ctrl-C, drain for `seconds` and complete the subscriptions; then call the server's own handler.

    Servers close WebSockets at once when they are told to exit, and wait for open event streams forever.
    """
    # In a thread other than the main one, a server gets no signals.
    with suppress(ValueError):
        drain = _Drain(process, seconds)
        for number in (signal.SIGTERM, signal.SIGINT):
            drain.wrap(number)


class _Drain:
    def __init__(self, process: Process, seconds: float) -> None:
        self._process, self._seconds = process, seconds
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Task[object] | None = None
        self._began: float | None = None

    def wrap(self, number: signal.Signals) -> None:
        """Drain before the present handler of the signal is called. A second signal calls it at once."""
        handler = signal.getsignal(number)

        def handle(_: int, frame: FrameType | None) -> None:
            if self._began is None:
                self._began = time.monotonic()
                self._loop.call_soon_threadsafe(self._start, number, handler)
            elif callable(handler) and time.monotonic() > self._began + SAME_SIGNAL_SECONDS:
                handler(number, frame)

        signal.signal(number, handle)

    def _start(self, number: signal.Signals, handler: "Callable[[int, FrameType | None], object] | int | None") -> None:
        self._draining = start_detached(self._drain(number, handler), "drain")

    async def _drain(
        self, number: signal.Signals, handler: "Callable[[int, FrameType | None], object] | int | None"
    ) -> None:
        try:
            with suppress(TimeoutError):
                await self._process.drain(self._seconds)
        finally:
            if callable(handler):
                handler(number, None)
