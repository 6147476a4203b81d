"""The GraphQL endpoint: authentication, limits and execution over HTTP. The other transports are in `transports`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any

from cross_web import HTTPException
from graphql import GraphQLError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError, MissingQueryError
from strawberry.http import GraphQLRequestData, async_base_view, streaming
from strawberry.http.parse_content_type import parse_content_type
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from container_manager import bounded_json, configuration
from container_manager.aio import background
from container_manager.domain.kinds import Role
from container_manager.observability import tracing
from container_manager.service import Service
from container_manager.store.tokens import Credential
from container_manager.store.transaction import Actor
from graphql_api import auth, browser_session, fanout, limits
from graphql_api.context import Context, Identity, Loader
from graphql_api.documents import is_subscription, too_large
from graphql_api.fanout import Delivery, Renderings, delivery, encode
from graphql_api.operation import begun, current
from graphql_api.sessions import Sessions
from graphql_api.transports import http
from graphql_api.transports.sse import EventStream, accepts_only_stream, merged
from graphql_api.transports.websocket import TransportHandler, WebSocketAdapter
from graphql_api.trusted import TrustedDocuments

SUBSCRIPTIONS_PER_CONNECTION = 50
READERS_BODY_BYTES = 1_048_576
LONGEST_ADDRESS = 100

LARGE_BODY_BYTES, LARGE_AT_ONCE = 32_768, 2
"""A body takes many times its size once it is parsed. More at once would not be faster, on one event loop."""

# The library parses the media types of each request with an email parser, though nearly all have the same ones.
_media_type = lru_cache(parse_content_type)
for _module in (async_base_view, streaming):
    _module.parse_content_type = _media_type  # type: ignore[attr-defined]

OVER_HTTP = {"GET": {OperationType.QUERY}, "POST": {OperationType.QUERY, OperationType.MUTATION}}


class GraphQLView(GraphQL[Context, None]):
    """The endpoint. Callers without a token are refused before their request is read."""

    websocket_adapter_class = WebSocketAdapter
    graphql_transport_ws_handler_class = TransportHandler
    stream_transport_classes_by_protocol = {GRAPHQL_SSE_PROTOCOL: EventStream}

    def __init__(
        self,
        schema: Any,
        *,
        no_auth: bool = False,
        allowed_origins: Sequence[str] = (),
        trusted: TrustedDocuments | None = None,
    ) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_SSE_PROTOCOL),
            max_subscriptions_per_connection=SUBSCRIPTIONS_PER_CONNECTION,
            allowed_origins=allowed_origins,
        )
        self._no_auth = no_auth
        self.renderings = Renderings()
        self.sessions = Sessions()
        self.trusted = trusted or TrustedDocuments()
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._tokens: tuple[Service, Loader[str, Credential | None]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await super().__call__(scope, receive, send)
            return
        context = await self.get_context(Request(scope), Response())
        most, most_values = configuration.current().max_body_bytes, limits.MAX_BATCH_VALUES
        if context.identity is None or not context.identity.may(Role.OPERATOR):
            # Only batches of jobs need more.
            most, most_values = min(most, READERS_BODY_BYTES), limits.MAX_VALUES
        request = Request(scope, _limited(receive, most))
        if context.identity is None:
            # Before the body is read, so that callers without a token cost nothing.
            await self._refusal(request, context)(scope, receive, send)
            return
        with begun() as operation:
            operation.most_values = most_values
            await self._serve(request, context, send)

    async def _serve(self, request: Request, context: Context, send: Send) -> None:
        scope, receive = request.scope, request.receive
        try:
            async with asyncio.timeout(limits.OPERATION_SECONDS):
                body = await request.body()
                async with self._large if len(body) > LARGE_BODY_BYTES else nullcontext():
                    response = await self.run(request, context=context)
        except TimeoutError:
            response = self._error(request, limits.too_long())
        except GraphQLError as error:
            response = self._error(request, error)
        except HTTPException as error:
            refused = GraphQLError(error.reason, extensions={"code": "BAD_REQUEST"})
            response = self._error(request, refused, error.status_code)
        except ClientDisconnect:
            return
        if (chunks := request.scope.get("chunks")) is None:
            await response(scope, receive, send)
            return
        with self.sessions.opened(context, partial(self._end_stream, chunks, auth.UNAUTHENTICATED)):
            if request.scope["endless"]:
                await response(scope, receive, send)
                return
            async with background(self._end_in_time(chunks)):
                await response(scope, receive, send)

    def _refusal(self, request: Request, context: Context) -> Response:
        """The answer to a caller without a valid token."""
        if context.is_refused_unread:
            response = self._error(request, auth.TOO_MANY_REFUSED, HTTPStatus.TOO_MANY_REQUESTS)
            response.headers["Retry-After"] = "60"
            return response
        refusal = auth.refusal(context, request.headers.get("authorization"))
        return self._error(request, refusal, 401 if accepts_only_stream(request) else None)

    def _error(self, request: Request, error: GraphQLError, status: int | None = None) -> Response:
        answer = {"data": None, "errors": [error.formatted]}
        response = self._answer(answer, http.preferred_type(request.headers.get("accept", "")))
        response.status_code = status or response.status_code
        return response

    def _answer(self, answer: Any, media_type: str) -> Response:
        status = http.status_of(answer) if media_type == http.GRAPHQL_JSON else 200
        if status == HTTPStatus.BAD_REQUEST:
            del answer["data"]
        return Response(self.encode_json(answer), status, media_type=media_type)

    async def get_sub_response(self, request: Request | WebSocket) -> Response:
        response = await super().get_sub_response(request)
        response.media_type = http.preferred_type(request.headers.get("accept", ""))
        return response

    def create_response(self, response_data: Any, sub_response: Response) -> Response:
        return self._answer(response_data, sub_response.media_type or http.JSON)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:  # noqa: ARG002
        service: Service = request.scope["state"]["service"]
        address = request.client.host[:LONGEST_ADDRESS] if request.client else ""
        if self._no_auth:
            identity = Identity(Actor(auth.NO_AUTH, address), Role.ADMIN)
            return Context(service, address, identity, subscribed=self.sessions.subscribed)
        if self._tokens is None or self._tokens[0] is not service:
            self._tokens = (service, Loader(service.tokens.authenticate))
        context = Context(service, address, tokens=self._tokens[1], subscribed=self.sessions.subscribed)
        # Also for a WebSocket that a page opens: only the page's own requests have the cookie.
        await auth.identify(context, request.headers.get("authorization") or browser_session.credentials(request))
        return context

    async def on_ws_connect(self, context: Context) -> Any:
        if context.identity is None:
            params = context.connection_params or {}
            await auth.identify(context, params.get("Authorization", params.get("authorization")))
        if context.identity is None:
            raise ConnectionRejectionError
        return await super().on_ws_connect(context)

    async def parse_http_body(self, request: Any) -> GraphQLRequestData | list[GraphQLRequestData]:
        if request.method == "POST" and not http.is_json(request.content_type or ""):
            raise HTTPException(415, f"The Content-Type must be {http.JSON}, in UTF-8.")
        try:
            data = await super().parse_http_body(request)
        except AttributeError as error:
            raise HTTPException(400, "The body must be a JSON object with `query`.") from error
        if isinstance(data, GraphQLRequestData) and not isinstance(data.operation_name, (str, type(None))):
            raise HTTPException(400, "`operationName` must be a string or null.")
        if isinstance(data, GraphQLRequestData) and data.protocol != "http" and not accepts_only_stream(request):
            # Some clients accept JSON and streams for every operation, but only a subscription needs a stream.
            return data if is_subscription(data.query, data.operation_name) else replace(data, protocol="http")
        return data

    async def execute_operation(
        self,
        request: Any,
        request_adapter: Any,
        request_data: Any,
        context: Context,
        root_value: None,
        sub_response: Any,
    ) -> Any:
        current().query = request_data.query or ""
        if request_data.query and (error := too_large(request_data.query)) is not None:
            return ExecutionResult(data=None, errors=[error])
        if request_data.protocol != "http":
            self._deliver_between_chunks(request, request_data)
        name = request_data.operation_name or "operation"
        with tracing.span(f"graphql {name}", request.headers.get("traceparent", "")):
            return await super().execute_operation(
                request, request_adapter, request_data, context, root_value, sub_response
            )

    async def execute_single(
        self,
        request: Any,  # noqa: ARG002 - the library's signature
        request_adapter: Any,
        sub_response: Any,  # noqa: ARG002
        context: Context,
        root_value: None,
        request_data: Any,
    ) -> ExecutionResult:
        try:
            return await self.schema.execute(
                request_data.query,
                variable_values=request_data.variables,
                context_value=context,
                root_value=root_value,
                operation_name=request_data.operation_name,
                allowed_operation_types=OVER_HTTP[request_adapter.method],
            )
        except InvalidOperationTypeError as error:
            reason = error.as_http_error_reason(request_adapter.method)
            if error.operation_type is OperationType.SUBSCRIPTION:
                reason = "A subscription needs a WebSocket, or `Accept: text/event-stream` over HTTP."
            raise HTTPException(400, reason) from error
        except CannotGetOperationTypeError as error:
            raise HTTPException(400, error.as_http_error_reason()) from error
        except MissingQueryError as error:
            raise HTTPException(400, "The request has no `query`.") from error

    def _deliver_between_chunks(self, request: Request, data: GraphQLRequestData) -> None:
        """Let the subscription send finished messages between the chunks of its HTTP response."""
        chunks: asyncio.Queue[str | Exception | None] = asyncio.Queue(1)
        event_stream = EventStream()

        async def send(payload: str) -> None:
            await chunks.put(event_stream.encode_event("next", payload))

        operation = fanout.Operation(data.query or "", data.variables, data.operation_name)
        delivery.set(Delivery(self.renderings, operation, send))
        request.scope["chunks"] = chunks
        request.scope["endless"] = is_subscription(data.query, data.operation_name)

    async def _end_in_time(self, chunks: "asyncio.Queue[str | Exception | None]") -> None:
        await asyncio.sleep(limits.OPERATION_SECONDS)
        await self._end_stream(chunks, limits.too_long())

    async def _end_stream(self, chunks: "asyncio.Queue[str | Exception | None]", error: GraphQLError) -> None:
        event_stream = EventStream()
        answer = self.encode_json({"data": None, "errors": [error.formatted]})
        for chunk in (event_stream.encode_event("next", answer), event_stream.encode_event("complete"), None):
            await chunks.put(chunk)

    async def create_streaming_response(
        self,
        request: Request | WebSocket,
        stream: Callable[[], AsyncIterator[str]],
        sub_response: Response,
        headers: Mapping[str, str],
    ) -> Response:
        both = partial(merged, stream, request.scope["chunks"])
        return await super().create_streaming_response(request, both, sub_response, headers)

    def should_render_graphql_ide(self, request: Any) -> bool:  # noqa: ARG002
        # A GET request may name its document by an id.
        return False

    def parse_json(self, data: str | bytes) -> Any:
        return self.trusted.resolve(super().parse_json(data))

    def parse_query_params(self, params: Any) -> dict[str, Any]:
        given = dict(params)
        for name in ("variables", "extensions"):
            if given.get(name):
                given[name] = super().parse_json(given[name])
        resolved: dict[str, Any] = self.trusted.resolve(given)
        return resolved

    def decode_json(self, data: str | bytes) -> object:
        # Stricter than the standard library: no lone surrogates, no endless digits or nesting.
        try:
            return bounded_json.loads(data, current().most_values)
        except bounded_json.TooManyValuesError as error:
            raise HTTPException(400, f"The request is too large: {error}. Send fewer at a time.") from error

    def encode_json(self, data: object) -> str:
        return encode(data)


def _limited(receive: Receive, limit: int) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, f"The request body is larger than {limit} bytes.")
        return message

    return limited
