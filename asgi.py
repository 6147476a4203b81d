"""The ASGI application: `uvicorn asgi:application` serves everything that `container-manager serve` does."""

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import asynccontextmanager, suppress
from functools import partial
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
from starlette.websockets import WebSocket, WebSocketClose

from container_manager import startup, tracing
from container_manager.bootstrap import register_local_engine
from container_manager.exposition import CONTENT_TYPE, exposition
from container_manager.service import Service, running
from container_manager.store import threads
from graphql_api.app import GraphQLApp
from graphql_api.auth import UNAUTHENTICATED
from graphql_api.errors import UNAVAILABLE
from graphql_api.schema import schema

logger = logging.getLogger(__name__)


PROBES = {"/livez", "/readyz"}
METRICS = "/metrics"

SAME_SIGNAL_SECONDS = 1.0
"""A terminal and a service manager tell all processes, and the parent of several tells them once more."""

TRY_AGAIN_LATER = 1013
"""A WebSocket's close code that has clients connect again."""


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
    probes = [Route("/livez", _livez), Route("/readyz", _readyz), Route(METRICS, partial(_metrics, graphql, set()))]
    # By whatever watches over the process. Where metrics need a token, a page that rebinds its name does not get them.
    by_address = PROBES if no_auth else {*PROBES, METRICS}
    pages = [
        Route("/graphql", graphql),
        WebSocketRoute("/graphql", graphql),
        WebSocketRoute("/{path:path}", WebSocketClose()),
        Mount("/", cast("Any", django_application)),
    ]
    return Starlette(
        routes=[*probes, *(pages if serves else [])],
        middleware=[
            Middleware(OnlyAllowedHosts, by_address=by_address),
            Middleware(
                CORSMiddleware,
                allow_origins=settings.CONTAINER_MANAGER.allowed_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type"],
            ),
        ],
        exception_handlers=dict.fromkeys(threads.DATABASE_AWAY, _unavailable),
        lifespan=lambda _: _lifespan(populate, serves, works),
    )


class OnlyAllowedHosts:
    """Refuses requests that name another host: a page that rebinds its own name to this address would be one of us.

    Starlette's TrustedHostMiddleware does not know IPv6 addresses; Django's own check does.
    """

    def __init__(self, app: ASGIApp, by_address: Container[str]) -> None:
        self._app = app
        self._by_address = by_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and scope["path"] not in self._by_address:
            host = Headers(scope=scope).get("host", "")
            domain, _ = split_domain_port(host)
            if not domain or not validate_host(domain, settings.ALLOWED_HOSTS):
                message = f"Host {host!r} is not allowed; add its name to CONTAINER_MANAGER_ALLOWED_HOSTS.\n"
                refusal = PlainTextResponse(message, 400) if scope["type"] == "http" else WebSocketClose()
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


@asynccontextmanager
async def _lifespan(
    populate: Callable[[Service], Awaitable[None]] | None, serves: bool, works: bool
) -> AsyncIterator[State]:
    try:
        if settings.SENDS_TRACES:
            tracing.configure()
        await threads.write(startup.prepare)
    except ConfigurationError as error:
        sys.exit(str(error))
    async with running(works=works) as service:
        _drain_on_signals(service, settings.CONTAINER_MANAGER.drain_seconds if serves else 0)
        populating = asyncio.create_task(_populate(service, populate)) if populate else None
        try:
            yield {"service": service}
        finally:
            if populating:
                populating.cancel()
                await asyncio.gather(populating, return_exceptions=True)
    await tracing.finish()


async def _populate(service: Service, populate: Callable[[Service], Awaitable[None]]) -> None:
    try:
        await populate(service)
    except Exception:
        # The service is worth having without what it was to begin with.
        logger.exception("populating the service")


def _drain_on_signals(service: Service, seconds: float) -> None:
    """On SIGTERM and Ctrl-C, be not ready for `seconds`, and complete the subscriptions before the server closes.

    A server closes WebSockets at once when it is told to exit, and waits for open event streams for ever;
    so its own handler is called only when the subscriptions have ended.
    """
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []
    told: list[float] = []

    def wrap(number: signal.Signals) -> None:
        before = signal.getsignal(number)

        async def drain() -> None:
            with suppress(TimeoutError):
                await service.drain(seconds)
            if callable(before):
                before(number, None)

        def handle(_: int, frame: FrameType | None) -> None:
            if not told:
                told.append(time.monotonic())
                loop.call_soon_threadsafe(lambda: stopping.append(loop.create_task(drain())))
            elif callable(before) and time.monotonic() > told[0] + SAME_SIGNAL_SECONDS:
                before(number, frame)

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


async def _unavailable(connection: Any, error: Exception) -> Any:
    logger.warning("%s: %r", connection.url.path, error)
    if isinstance(connection, WebSocket):
        await connection.close(TRY_AGAIN_LATER)
        return None
    return JSONResponse({"data": None, "errors": [UNAVAILABLE.formatted]}, 503)


async def _metrics(graphql: GraphQLApp, allowed: set[str], request: Request) -> Response:
    """`allowed`: what was shown by those who have a token, because they go on asking while the database is away."""
    shown = request.headers.get("authorization", "")
    try:
        if (await graphql.get_context(request, Response())).identity is not None:
            allowed.add(shown)
        else:
            allowed.discard(shown)
    except threads.DATABASE_AWAY:
        if shown not in allowed:
            raise
    if shown not in allowed:
        return PlainTextResponse(f"{UNAUTHENTICATED.message}\n", 401, {"WWW-Authenticate": "Bearer"})
    return Response(await exposition(), media_type=CONTENT_TYPE)


application = make_application(populate=register_local_engine)

# What the start has made stays, and batches make many objects that go by themselves: look at both less often.
gc.collect()
gc.freeze()
gc.set_threshold(50_000, 20, 50)
