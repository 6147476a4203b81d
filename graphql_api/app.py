"""GraphQL over HTTP, WebSocket and Server-Sent Events, straight on ASGI."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import NoneType
from typing import Any

import orjson
from cross_web import HTTPException
from django.conf import settings
from graphql import GraphQLError, get_operation_ast, parse
from graphql import OperationType as OperationKind
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from strawberry.asgi import ASGIWebSocketAdapter, GraphQL
from strawberry.exceptions import ConnectionRejectionError, MissingQueryError
from strawberry.http import GraphQLRequestData
from strawberry.http.exceptions import NonJsonMessageReceived, WebSocketDisconnected
from strawberry.http.streaming import SSETransport
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from container_manager import tracing
from container_manager.models import ApiToken, Role
from container_manager.service import Service
from container_manager.store.transaction import Actor
from graphql_api import auth, fanout
from graphql_api.context import Context, Identity, Loader
from graphql_api.fanout import Delivery, Renderings, delivery, encode
from graphql_api.limits import MAX_TOKENS

SUBSCRIPTIONS_PER_CONNECTION = 50
OPERATION_SECONDS = 60
TOO_LONG = GraphQLError(
    f"The operation took longer than {OPERATION_SECONDS} s and was given up; a mutation may have had its effect.",
    extensions={"code": "TIMEOUT"},
)
OVER_HTTP = {"GET": {OperationType.QUERY}, "POST": {OperationType.QUERY, OperationType.MUTATION}}


class _EventStream(SSETransport):
    """With line ends that all clients know: some split at one newline only."""

    def encode_event(self, event: str, data: str | None = None) -> str:
        return super().encode_event(event, data).replace("\r\n", "\n")

    def encode_comment(self, comment: str) -> str:
        return super().encode_comment(comment).replace("\r\n", "\n")


class _WebSocketAdapter(ASGIWebSocketAdapter):
    async def iter_json(self, *, ignore_parsing_errors: bool = False) -> AsyncGenerator[object, None]:
        async for message in super().iter_json(ignore_parsing_errors=ignore_parsing_errors):
            if not isinstance(message, dict) or not isinstance(message.get("id", ""), str):
                raise NonJsonMessageReceived
            yield message

    async def send_text(self, text: str) -> None:
        try:
            await self.ws.send({"type": "websocket.send", "text": text})
        except WebSocketDisconnect as error:
            raise WebSocketDisconnected from error


class _TransportHandler(BaseGraphQLTransportWSHandler[Context, None]):
    view: "GraphQLApp"
    websocket: _WebSocketAdapter

    async def run_operation(self, operation: Operation[Context, None]) -> None:
        head = f'{{"id":{encode(operation.id)},"type":"next","payload":'

        async def send(payload: str) -> None:
            if not operation.completed:
                await self.websocket.send_text(f"{head}{payload}}}")

        sent = fanout.Operation(operation.query, operation.variables, operation.operation_name)
        delivery.set(Delivery(self.view.renderings, sent, send))
        await super().run_operation(operation)

    async def handle_task_exception(self, error: Exception) -> None:
        if not isinstance(error, WebSocketDisconnected):
            # Clients come and go; everything else is worth a line in the log.
            await super().handle_task_exception(error)

    async def handle_subscribe(self, message: Any) -> None:
        payload = message["payload"]
        if not (
            isinstance(payload, dict)
            and isinstance(payload.get("query"), str)
            and isinstance(payload.get("variables"), (dict, NoneType))
        ):
            await self.handle_invalid_message("Failed to parse message")
            return
        if not self.connection_acknowledged:
            await self.websocket.close(4401, "Unauthorized")
        elif not await auth.still_valid(self.context):
            await self.websocket.close(4403, "The token has expired or was revoked")
        elif (error := _too_large(payload["query"])) is not None:
            await self.send_message({"id": message["id"], "type": "error", "payload": [error.formatted]})
        else:
            await super().handle_subscribe(message)


class GraphQLApp(GraphQL[Context, None]):
    """The endpoint. Callers without a token are told so, and nothing else."""

    websocket_adapter_class = _WebSocketAdapter
    graphql_transport_ws_handler_class = _TransportHandler
    stream_transport_classes_by_protocol = {GRAPHQL_SSE_PROTOCOL: _EventStream}

    def __init__(self, schema: Any, *, no_auth: bool = False, allowed_origins: Sequence[str] = ()) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_SSE_PROTOCOL),
            max_subscriptions_per_connection=SUBSCRIPTIONS_PER_CONNECTION,
            allowed_origins=allowed_origins,
        )
        self._no_auth = no_auth
        self.renderings = Renderings()
        self._tokens: tuple[Service, Loader[str, ApiToken | None]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await super().__call__(scope, receive, send)
            return
        request = Request(scope, _limited(receive, settings.CONTAINER_MANAGER.max_body_bytes))
        context = await self.get_context(request, Response())
        if context.identity is None:
            # Before the body is read: who has no token costs nothing.
            await self._answer(auth.UNAUTHENTICATED, 401 if _is_stream(request) else 200)(scope, receive, send)
            return
        try:
            async with asyncio.timeout(OPERATION_SECONDS if not _is_stream(request) else None):
                response = await self.run(request, context=context)
        except TimeoutError:
            response = self._answer(TOO_LONG)
        except HTTPException as error:
            response = _refusal(error.status_code, error.reason)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    def _answer(self, error: GraphQLError, status: int = 200) -> Response:
        body = self.encode_json({"data": None, "errors": [error.formatted]})
        return Response(body, status, media_type="application/json")

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:  # noqa: ARG002
        service: Service = request.scope["state"]["service"]
        address = request.client.host if request.client else ""
        if self._no_auth:
            return Context(service, address, Identity(Actor(auth.NO_AUTH, address), Role.ADMIN))
        if self._tokens is None or self._tokens[0] is not service:
            self._tokens = (service, Loader(service.authenticate))
        context = Context(service, address, tokens=self._tokens[1])
        await auth.identify(context, request.headers.get("authorization"))
        return context

    async def on_ws_connect(self, context: Context) -> Any:
        if context.identity is None:
            params = context.connection_params or {}
            await auth.identify(context, params.get("Authorization", params.get("authorization")))
        if context.identity is None:
            raise ConnectionRejectionError
        return await super().on_ws_connect(context)

    async def parse_http_body(self, request: Any) -> GraphQLRequestData | list[GraphQLRequestData]:
        try:
            data = await super().parse_http_body(request)
        except AttributeError as error:
            raise HTTPException(400, "The body must be a JSON object with `query`.") from error
        if isinstance(data, GraphQLRequestData) and not isinstance(data.operation_name, (str, type(None))):
            raise HTTPException(400, "`operationName` must be a string or null.")
        if isinstance(data, GraphQLRequestData) and data.protocol != "http" and not _is_stream(request):
            # Some clients take both whatever they ask for; only a subscription needs a stream.
            return data if _subscribes(data) else replace(data, protocol="http")
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
        if request_data.query and (error := _too_large(request_data.query)) is not None:
            return ExecutionResult(data=None, errors=[error])
        if request_data.protocol != "http":
            self._deliver_in(request, request_data)
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

    def _deliver_in(self, request: Request, data: GraphQLRequestData) -> None:
        """Let what the operation sends ready-made go between the chunks of the response."""
        chunks: asyncio.Queue[str | Exception | None] = asyncio.Queue(1)
        event_stream = _EventStream()

        async def send(payload: str) -> None:
            await chunks.put(event_stream.encode_event("next", payload))

        sent = fanout.Operation(data.query or "", data.variables, data.operation_name)
        delivery.set(Delivery(self.renderings, sent, send))
        request.scope["chunks"] = chunks

    async def create_streaming_response(
        self,
        request: Request | WebSocket,
        stream: Callable[[], AsyncIterator[str]],
        sub_response: Response,
        headers: Mapping[str, str],
    ) -> Response:
        both = partial(_merged, stream, request.scope["chunks"])
        return await super().create_streaming_response(request, both, sub_response, headers)

    def decode_json(self, data: str | bytes) -> object:
        # Stricter than Python's own: no lone surrogates, no endless digits or nesting.
        return orjson.loads(data)

    def encode_json(self, data: object) -> str:
        return encode(data)


async def _merged(
    stream: Callable[[], AsyncIterator[str]], chunks: asyncio.Queue[str | Exception | None]
) -> AsyncGenerator[str, None]:
    async def relay() -> None:
        try:
            async for chunk in stream():
                await chunks.put(chunk)
            await chunks.put(None)
        except Exception as error:  # noqa: BLE001 - raised again where the response is sent
            await chunks.put(error)

    relaying = asyncio.create_task(relay())
    try:
        while (chunk := await chunks.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
    finally:
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)


def _is_stream(request: Any) -> bool:
    """Whether the caller takes an event stream and nothing else."""
    accept = request.headers.get("accept", "")
    return "text/event-stream" in accept and "json" not in accept and "*/*" not in accept


def _subscribes(data: GraphQLRequestData) -> bool:
    if not data.query or _too_large(data.query) is not None:
        return False
    try:
        operation = get_operation_ast(parse(data.query, max_tokens=MAX_TOKENS), data.operation_name)
    except GraphQLError:
        return False
    return operation is not None and operation.operation is OperationKind.SUBSCRIPTION


def _too_large(document: str) -> GraphQLError | None:
    limit: int = settings.CONTAINER_MANAGER.max_document_bytes
    size = len(document.encode())
    if size <= limit:
        return None
    return GraphQLError(
        f"query: the document has {size} bytes; at most {limit} are allowed. Put data into variables.",
        extensions={"code": "BAD_USER_INPUT"},
    )


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


def _refusal(status: int, reason: str) -> Response:
    return JSONResponse({"errors": [{"message": reason, "extensions": {"code": "BAD_REQUEST"}}]}, status)
