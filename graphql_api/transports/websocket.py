"""The protocol graphql-transport-ws over WebSocket."""

import asyncio
from collections.abc import AsyncGenerator
from types import NoneType
from typing import TYPE_CHECKING, Any

from graphql import GraphQLError
from starlette.websockets import WebSocketDisconnect
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import NonJsonMessageReceived, WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation

from graphql_api import fanout, limits
from graphql_api.context import Context
from graphql_api.documents import is_subscription, too_large
from graphql_api.fanout import Delivery, delivery, encode
from graphql_api.operation import begun

if TYPE_CHECKING:
    from graphql_api.view import GraphQLView


LONGEST_REASON = 123


class WebSocketAdapter(ASGIWebSocketAdapter):
    """Checks the shape of messages, and reports a closed connection as the library expects."""

    async def iter_json(self, *, ignore_parsing_errors: bool = False) -> AsyncGenerator[object, None]:
        async for message in super().iter_json(ignore_parsing_errors=ignore_parsing_errors):
            if not isinstance(message, dict) or not isinstance(message.get("id", ""), str):
                raise NonJsonMessageReceived
            yield message

    async def close(self, code: int, reason: str) -> None:
        """Close the connection; a close frame has room for 123 bytes of reason."""
        await super().close(code, reason.encode()[:LONGEST_REASON].decode(errors="ignore"))

    async def send_text(self, text: str) -> None:
        """Send a finished message."""
        try:
            await self.ws.send({"type": "websocket.send", "text": text})
        except WebSocketDisconnect as error:
            raise WebSocketDisconnected from error


class TransportHandler(BaseGraphQLTransportWSHandler[Context, None]):
    """One connection. Subscriptions to events send finished messages past the library; see `fanout`."""

    view: "GraphQLView"
    websocket: WebSocketAdapter

    async def handle(self) -> None:
        with self.view.sessions.opened(self.context, self._end):
            await super().handle()

    async def _end(self) -> None:
        await self.websocket.close(4403, "The token has expired or was revoked")

    async def run_operation(self, operation: Operation[Context, None]) -> None:
        head = f'{{"id":{encode(operation.id)},"type":"next","payload":'

        async def send(payload: str) -> None:
            if not operation.completed:
                await self.websocket.send_text(f"{head}{payload}}}")

        sent = fanout.Operation(operation.query, operation.variables, operation.operation_name)
        delivery.set(Delivery(self.view.renderings, sent, send))
        endless = is_subscription(operation.query, operation.operation_name)
        try:
            with begun(operation.query):
                async with asyncio.timeout(None if endless else limits.OPERATION_SECONDS):
                    await super().run_operation(operation)
        except TimeoutError:
            await operation.send_initial_errors([limits.too_long()])

    @staticmethod
    def _get_pre_execution_close_reason(error: GraphQLError) -> str | None:  # noqa: ARG004 - the library's signature
        # A document that is wrong is the end of its operation, and not of all others on the connection.
        return None

    async def handle_task_exception(self, error: Exception) -> None:
        # A client that disconnects is nothing to log.
        if not isinstance(error, WebSocketDisconnected):
            await super().handle_task_exception(error)

    async def handle_subscribe(self, message: Any) -> None:
        payload: Any = message["payload"]
        try:
            # Before, the answer would tell anyone which ids exist.
            if self.connection_acknowledged:
                payload = self.view.trusted.resolve(payload)
        except GraphQLError as refusal:
            await self.send_message({"id": message["id"], "type": "error", "payload": [refusal.formatted]})
            return
        message = {**message, "payload": payload}
        if not (
            isinstance(payload, dict)
            and isinstance(payload.get("query"), str)
            and isinstance(payload.get("variables"), (dict, NoneType))
        ):
            await self.handle_invalid_message("Failed to parse message")
            return
        if not self.connection_acknowledged:
            await self.websocket.close(4401, "Unauthorized")
        elif self.context.identity is None:
            await self._end()
        elif (error := too_large(payload["query"])) is not None:
            await self.send_message({"id": message["id"], "type": "error", "payload": [error.formatted]})
        else:
            await super().handle_subscribe(message)
