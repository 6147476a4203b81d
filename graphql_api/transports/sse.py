"""Subscriptions as Server-Sent Events over one HTTP response."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from strawberry.http.streaming import SSETransport

from container_manager.aio import background


class EventStream(SSETransport):
    """With line ends that all clients understand: some split only at a single newline."""

    def encode_event(self, event: str, data: str | None = None) -> str:
        return super().encode_event(event, data).replace("\r\n", "\n")

    def encode_comment(self, comment: str) -> str:
        return super().encode_comment(comment).replace("\r\n", "\n")


async def merged(
    stream: Callable[[], AsyncIterator[str]], chunks: asyncio.Queue[str | Exception | None]
) -> AsyncGenerator[str, None]:
    """The chunks of the library's own stream, and those that a subscription puts into the queue itself."""

    async def relay() -> None:
        try:
            async for chunk in stream():
                await chunks.put(chunk)
            await chunks.put(None)
        except Exception as error:  # noqa: BLE001 - raised again where the response is sent
            await chunks.put(error)

    async with background(relay()):
        while (chunk := await chunks.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def accepts_only_stream(request: Any) -> bool:
    """Whether the client accepts an event stream and nothing else."""
    accept = request.headers.get("accept", "")
    return "text/event-stream" in accept and "json" not in accept and "*/*" not in accept
