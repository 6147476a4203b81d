"""A real server on a real port, in the test's event loop."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from asgiref.sync import sync_to_async

from container_manager.cli.server import Server
from container_manager.domain.kinds import Role
from container_manager.store.tokens import Created, NewToken, create
from container_manager.store.transaction import commit_one
from graphql_api.front_door import FrontDoor

_names = itertools.count()


class _Impatient:
    """asyncio for uvicorn's server, which sleeps for a tenth of a second before it looks whether it should stop."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))


uvicorn.server.asyncio = _Impatient()  # type: ignore[assignment]


async def make_token(role: Role, name: str = "") -> str:
    created: Created = await sync_to_async(commit_one)(create, NewToken(name or f"{role}-{next(_names)}", role))
    return created.secret


@asynccontextmanager
async def serving(application: Any) -> AsyncIterator[str]:
    """A uvicorn server in this event loop; its url."""
    listener = socket.create_server(("127.0.0.1", 0))
    ready = asyncio.Event()
    config = uvicorn.Config(application, http=FrontDoor, log_config=None, timeout_graceful_shutdown=5)
    server = Server(config, ready.set)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        await task
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
