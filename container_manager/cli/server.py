"""A uvicorn server that says when it answers."""

import socket
from collections.abc import Callable

import uvicorn


class Server(uvicorn.Server):
    """Calls `on_ready` once, when it accepts connections."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_ready()
