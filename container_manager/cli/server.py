"""uvicorn servers that report when they accept connections.

They override methods of uvicorn's server and supervisor classes; pyproject.toml caps uvicorn's version.
"""

import socket
import time
from collections.abc import Callable

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.supervisors import Multiprocess

STARTS_WITHIN_SECONDS = 60


class Server(uvicorn.Server):
    """Calls `on_ready` once, when it accepts connections."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_ready()


class Workers(Multiprocess):
    """Worker processes on one socket. Calls `on_ready` once, when all accept connections; replaces those that die."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], on_ready: Callable[[], None]) -> None:
        super().__init__(config, sockets)
        self._on_ready = on_ready
        self._pids: set[int | None] = set()
        self.started = False

    def init_processes(self) -> None:
        super().init_processes()
        deadline = time.monotonic() + STARTS_WITHIN_SECONDS
        while not all(process.is_ready(timeout=1) for process in self.processes):
            self.handle_signals()
            alive = all(process.process.is_alive() for process in self.processes)
            if self.should_exit.is_set() or not alive or time.monotonic() > deadline:
                self.should_exit.set()
                return
            self.should_exit.wait(0.1)
        self.started = True
        self._on_ready()

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        now = {process.pid for process in self.processes}
        for pid in self._pids - now:
            # Its counters stay in the metrics; its gauges are dropped.
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
        self._pids = now
