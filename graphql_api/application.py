"""The ASGI application: its routes, and the service that lives as long as it does."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache, partial
from typing import Any, TypedDict

from django.http.request import split_domain_port, validate_host
from graphql import GraphQLError
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketClose
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from container_manager import configuration, startup
from container_manager.aio import cancel_and_wait
from container_manager.environment import ConfigurationError, sends_traces
from container_manager.observability import tracing
from container_manager.observability.exposition import CONTENT_TYPE, exposition
from container_manager.service import Service, current, running
from container_manager.store import threads
from container_manager.store.tokens import digest
from graphql_api import admin, auth, dashboard, memory
from graphql_api.errors import UNAVAILABLE
from graphql_api.schema import schema
from graphql_api.shutdown import drain_on_signals
from graphql_api.trusted import TrustedDocuments
from graphql_api.view import GraphQLView

logger = logging.getLogger(__name__)

PROBES = {"/livez", "/readyz"}
METRICS = "/metrics"
SECURE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)

MOST_SCRAPERS = 1000
"""Tokens whose holders get metrics while the database does not answer."""

TRY_AGAIN_LATER = 1013
"""The close code of a WebSocket that tells clients to connect again."""

Populate = Callable[[Service], Awaitable[None]]


class State(TypedDict):
    """What the lifespan gives to every request."""

    service: Service


def make_application(
    *, no_auth: bool = False, populate: Populate | None = None, serves: bool = True, runs_jobs: bool = True
) -> Starlette:
    """Build the application.

    Args:
        no_auth: every caller is an admin.
        populate: runs beside the service, from its start to its end.
        serves: answer GraphQL, and not only probes and metrics.
        runs_jobs: run jobs.
    """
    environment = configuration.current()
    try:
        own = dashboard.documents()
        trusted = TrustedDocuments.load(environment.trusted_documents, schema._schema, own)  # noqa: SLF001
    except ConfigurationError as error:
        sys.exit(str(error))
    view = GraphQLView(schema, no_auth=no_auth, allowed_origins=environment.allowed_origins, trusted=trusted)
    probes = [Route("/livez", _livez), Route("/readyz", _readyz), Route(METRICS, partial(_metrics, view, set()))]
    # Monitoring comes by address. Metrics without tokens do not: a web page could read them by DNS rebinding.
    by_address = PROBES if no_auth else {*PROBES, METRICS}
    pages = [
        Route("/graphql", dashboard.EditorOr(view)),
        WebSocketRoute("/graphql", view),
        *dashboard.routes(view),
        # A project has an admin of its own, which shows our tables, too.
        *([] if configuration.is_embedded() else admin.routes(view)),
    ]
    return Starlette(
        routes=[*probes, *(pages if serves else [])],
        middleware=[
            *([Middleware(Started)] if configuration.is_embedded() else []),
            Middleware(ProxyHeadersMiddleware, trusted_hosts=list(configuration.current().trusted_proxies)),
            Middleware(SecureHeaders),
            Middleware(AllowedHosts, by_address=by_address),
            Middleware(
                CORSMiddleware,
                allow_origins=configuration.current().allowed_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type"],
            ),
        ],
        exception_handlers={
            **dict.fromkeys(threads.DATABASE_AWAY, _unavailable),
            **({404: dashboard.not_found} if serves else {}),
        },
        lifespan=lambda _: _lifespan(populate, serves=serves, runs_jobs=runs_jobs),
    )


class Started:
    """Gives requests the service that runs in this process, for an application that is mounted into another one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            here = current()
            if here is None:
                refusal = JSONResponse({"errors": [NOT_STARTED.formatted]}, 503)
                await (refusal if scope["type"] == "http" else WebSocketClose(TRY_AGAIN_LATER))(scope, receive, send)
                return
            scope.setdefault("state", {})["service"] = here.service
        await self._app(scope, receive, send)


def _path(scope: Scope) -> str:
    """The path below the one at which the application is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class SecureHeaders:
    """Adds the headers by which browsers neither guess a type nor keep an answer, and tell no other site of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name for name, _ in given}
                message["headers"] = given + [header for header in SECURE_HEADERS if header[0] not in names]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


@lru_cache
def _is_allowed(host: str, hosts: tuple[str, ...]) -> bool:
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, hosts)


class AllowedHosts:
    """Refuses requests whose Host header names another host. Prevents DNS rebinding.

    Django's check is used, because Starlette's TrustedHostMiddleware does not know IPv6 addresses.
    """

    def __init__(self, app: ASGIApp, by_address: Container[str]) -> None:
        self._app = app
        self._by_address = by_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and _path(scope) not in self._by_address:
            host = Headers(scope=scope).get("host", "")
            if not _is_allowed(host, tuple(configuration.allowed_hosts())):
                where = "ALLOWED_HOSTS" if configuration.is_embedded() else "CONTAINER_MANAGER_ALLOWED_HOSTS"
                message = f"Host {host!r} is not allowed; add its name to {where}.\n"
                refusal = PlainTextResponse(message, 400) if scope["type"] == "http" else WebSocketClose()
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


NOT_STARTED = GraphQLError(
    "The service has not started: use container_manager.embed.mount, or its lifespan in that of the application.",
    extensions={"code": "UNAVAILABLE"},
)


@asynccontextmanager
async def serving(runs_jobs: bool = True, drain_seconds: float = 0) -> AsyncIterator[Service]:
    """A running service whose subscriptions are completed when the server is told to stop.

    Raises:
        ConfigurationError: it cannot start.
    """
    await threads.prepare(startup.prepare)
    async with running(runs_jobs=runs_jobs) as service:
        drain_on_signals(service.process, drain_seconds)
        yield service


@asynccontextmanager
async def _lifespan(populate: Populate | None, *, serves: bool, runs_jobs: bool) -> AsyncIterator[State]:
    memory.tune()
    async with AsyncExitStack() as stack:
        try:
            if sends_traces():
                tracing.configure()
            seconds = configuration.current().drain_seconds if serves else 0
            service = await stack.enter_async_context(serving(runs_jobs, seconds))
        except ConfigurationError as error:
            sys.exit(str(error))
        populating = asyncio.create_task(_populate(service, populate)) if populate else None
        trimming = asyncio.create_task(memory.trim_regularly(), name="giving memory back")
        try:
            yield {"service": service}
        finally:
            await cancel_and_wait(populating, trimming)
    await tracing.finish()


async def _populate(service: Service, populate: Populate) -> None:
    try:
        await populate(service)
    except Exception:
        # The service is useful without its first hosts.
        logger.exception("populating the service failed")


async def _livez(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _readyz(request: Request) -> Response:
    service: Service = request.state.service
    problems = await service.process.problems()
    body: dict[str, Any] = {"ready": not problems, "failing": problems}
    return JSONResponse(body, 503 if problems else 200)


async def _metrics(view: GraphQLView, known: set[str], request: Request) -> Response:
    """The metrics, for callers with a token.

    `known`: digests of tokens that were valid before. They are accepted while the database does not answer, because
    that is when monitoring matters most.
    """
    credentials = digest(auth.secret_of(request.headers.get("authorization")))
    try:
        valid = (await view.get_context(request, Response())).identity is not None
    except threads.DATABASE_AWAY:
        if credentials not in known:
            raise
        valid = True
    if not valid:
        known.discard(credentials)
        return PlainTextResponse(f"{auth.UNAUTHENTICATED.message}\n", 401, {"WWW-Authenticate": "Bearer"})
    if len(known) < MOST_SCRAPERS:
        known.add(credentials)
    return Response(await exposition(), media_type=CONTENT_TYPE)


async def _unavailable(connection: Any, error: Exception) -> Any:
    logger.warning("%s: %r", connection.url.path, error)
    if isinstance(connection, WebSocket):
        await connection.close(TRY_AGAIN_LATER)
        return None
    return JSONResponse({"data": None, "errors": [UNAVAILABLE.formatted]}, 503)
