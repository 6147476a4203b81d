"""The least that a fan-out can do: a bare ASGI WebSocket that sends the same finished text to all clients.

python -m benchmarks.broadcast RATE
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from container_manager.cli.server import Server

TEXT = (
    '{{"id":"1","type":"next","payload":{{"data":{{"routingEvents":{{"id":"Um91dGluZ0V2ZW50OjEyMzQ1","cursor":"{}",'
    '"kind":"JOB_PROGRESS","at":"{}","message":"The job makes progress, and this is its message.",'
    '"hostName":"host-00000","job":{{"id":"Q29udGFpbmVySm9iOjE=","name":"a-job","status":"RUNNING"}},'
    '"host":{{"id":"RXhlY3V0b3JIb3N0OjE=","name":"host-00000"}}}}}}}}}}'
)
connections: set[WebSocket] = set()


async def endpoint(socket: WebSocket) -> None:
    await socket.accept(subprotocol="graphql-transport-ws")
    await socket.receive_text()
    await socket.send_text('{"type":"connection_ack"}')
    await socket.receive_text()
    connections.add(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        connections.discard(socket)


async def broadcast(rate: float) -> None:
    cursor, due = 0, asyncio.get_running_loop().time()
    while True:
        cursor, due = cursor + 1, due + 1 / rate
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        text = TEXT.format(cursor, datetime.now(UTC).isoformat())
        for socket in list(connections):
            await socket.send({"type": "websocket.send", "text": text})


def main() -> None:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(broadcast(float(sys.argv[1])))
        yield
        task.cancel()

    application = Starlette(routes=[WebSocketRoute("/graphql", endpoint)], lifespan=lifespan)
    config = uvicorn.Config(application, port=0, log_level="warning", ws_per_message_deflate=False)
    server = Server(config, lambda: print(f"ready http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"))
    server.run()


if __name__ == "__main__":
    main()
