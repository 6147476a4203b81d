"""The ASGI application: `uvicorn asgi:application` serves everything that `container-manager serve` does."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any, TypedDict, cast

from container_manager.environment import ConfigurationError

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "container_manager.settings")

try:
    from django.core.asgi import get_asgi_application

    django_application = get_asgi_application()
except ConfigurationError as error:
    sys.exit(str(error))

from django.conf import settings
from django.http.request import split_domain_port, validate_host
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from container_manager import startup
from container_manager.bootstrap import register_local_engine
from container_manager.service import Service, running
from graphql_api.app import GraphQLApp
from graphql_api.schema import schema

logger = logging.getLogger(__name__)


PROBES = {"/livez", "/readyz"}
"""Asked by address, by whatever watches over the process."""


class State(TypedDict):
    """What the lifespan gives to every request."""

    service: Service


def make_application(
    *,
    no_auth: bool = False,
    populate: Callable[[Service], Awaitable[None]] | None = None,
    serves: bool = True,
    works: bool = True,
) -> Starlette:
    """Build the application.

    Args:
        no_auth: every caller is an admin.
        populate: runs beside the service from its start to its end.
        serves: answers GraphQL, and not only what watches over processes.
        works: runs jobs.
    """
    graphql = GraphQLApp(schema, no_auth=no_auth, allowed_origins=settings.CONTAINER_MANAGER.allowed_origins)
    probes = [Route("/livez", _livez), Route("/readyz", _readyz)]
    pages = [
        Route("/graphql", graphql),
        WebSocketRoute("/graphql", graphql),
        WebSocketRoute("/{path:path}", WebSocketClose()),
        Mount("/", cast("Any", django_application)),
    ]
    return Starlette(
        routes=[*probes, *(pages if serves else [])],
        middleware=[
            Middleware(OnlyAllowedHosts),
            Middleware(
                CORSMiddleware,
                allow_origins=settings.CONTAINER_MANAGER.allowed_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type"],
            ),
        ],
        lifespan=lambda _: _lifespan(populate, works),
    )


class OnlyAllowedHosts:
    """Refuses requests that name another host: a page that rebinds its own name to this address would be one of us.

    Starlette's TrustedHostMiddleware does not know IPv6 addresses; Django's own check does.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and scope["path"] not in PROBES:
            host = Headers(scope=scope).get("host", "")
            domain, _ = split_domain_port(host)
            if not domain or not validate_host(domain, settings.ALLOWED_HOSTS):
                message = f"Host {host!r} is not allowed; add its name to CONTAINER_MANAGER_ALLOWED_HOSTS.\n"
                refusal = PlainTextResponse(message, 400) if scope["type"] == "http" else WebSocketClose()
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


@asynccontextmanager
async def _lifespan(populate: Callable[[Service], Awaitable[None]] | None, works: bool) -> AsyncIterator[State]:
    try:
        await asyncio.to_thread(startup.prepare)
    except ConfigurationError as error:
        sys.exit(str(error))
    async with running(works=works) as service:
        _drain_on_signals(service)
        populating = asyncio.create_task(_populate(service, populate)) if populate else None
        try:
            yield {"service": service}
        finally:
            if populating:
                populating.cancel()
                await asyncio.gather(populating, return_exceptions=True)


async def _populate(service: Service, populate: Callable[[Service], Awaitable[None]]) -> None:
    try:
        await populate(service)
    except Exception:
        # The service is worth having without what it was to begin with.
        logger.exception("populating the service")


def _drain_on_signals(service: Service) -> None:
    """On SIGTERM and Ctrl-C, complete the subscriptions before the server closes their connections.

    A server closes WebSockets at once when it is told to exit, and waits for open event streams for ever;
    so its own handler is called only when the subscriptions have ended.
    """
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def wrap(number: signal.Signals) -> None:
        before = signal.getsignal(number)

        async def drain() -> None:
            with suppress(TimeoutError):
                await service.drain()
            if callable(before):
                before(number, None)

        def handle(_: int, frame: FrameType | None) -> None:
            if stopping and callable(before):
                before(number, frame)
            else:
                loop.call_soon_threadsafe(lambda: stopping.append(loop.create_task(drain())))

        signal.signal(number, handle)

    # A server in another thread than the main one has no signals to handle.
    with suppress(ValueError):
        wrap(signal.SIGTERM)
        wrap(signal.SIGINT)


async def _livez(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _readyz(request: Request) -> Response:
    service: Service = request.state.service
    problems = await service.failing()
    body: dict[str, Any] = {"ready": not problems, "failing": problems}
    return JSONResponse(body, 503 if problems else 200)


application = make_application(populate=register_local_engine)

# What the start has made stays, and batches make many objects that go by themselves: look at both less often.
gc.collect()
gc.freeze()
gc.set_threshold(50_000, 20, 50)
