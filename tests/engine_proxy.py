"""A proxy before an engine's socket, which refuses, delays and changes calls as a test says."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.engines import EngineApi

Rule = Callable[[web.Request], "web.StreamResponse | Awaitable[web.StreamResponse | None] | None"]


class Proxy:
    """`rule` answers a request itself, or returns None to let it pass. It may be changed at any time."""

    def __init__(self, engine: EngineApi, rule: Rule) -> None:
        self._socket, self.rule = str(engine.socket), rule
        self._clients: set[asyncio.BaseTransport] = set()
        self.folder = Path(tempfile.mkdtemp(prefix="cmx-", dir="/tmp"))
        self.url = f"unix://{self.folder}/p.sock"
        self.rewrite: Callable[[str], str] = lambda path: path
        self.headers: dict[str, str] = {}
        """Headers of each answer that are replaced."""

    def drop(self) -> None:
        """Close all connections, as an engine that is upgraded does."""
        for client in self._clients:
            client.close()
        self._clients.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            self._clients.add(request.transport)
        ruled = self.rule(request)
        answer = await ruled if isinstance(ruled, Awaitable) else ruled
        return answer if answer is not None else await self._pass(request)

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        connector = aiohttp.UnixConnector(self._socket)
        address = f"http://engine{self.rewrite(request.raw_path)}"
        names = ("Content-Type", "X-Registry-Auth")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout()) as session,
            session.request(request.method, address, data=await request.read(), headers=headers) as theirs,
        ):
            kept = ("Content-Type", "Api-Version", "Libpod-Api-Version")
            passed = {name: theirs.headers[name] for name in kept if name in theirs.headers} | self.headers
            ours = web.StreamResponse(status=theirs.status, headers=passed)
            with suppress(ConnectionError):
                await ours.prepare(request)
                async for piece in theirs.content.iter_any():
                    await ours.write(piece)
            return ours


@asynccontextmanager
async def proxied(engine: EngineApi, rule: Rule = lambda _: None) -> AsyncIterator[Proxy]:
    proxy = Proxy(engine, rule)
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, proxy.url.removeprefix("unix://")).start()
    try:
        yield proxy
    finally:
        proxy.drop()
        await runner.cleanup()


def refuse(status: int, message: str = "denied by the proxy") -> web.Response:
    return web.json_response({"message": message}, status=status)
