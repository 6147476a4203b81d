"""What a client may do to a connection before its request reaches the application: limits of size, number and time.

They override methods of uvicorn's protocol class; pyproject.toml caps uvicorn's version.
"""

import asyncio
import resource
import socket
import sys
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from container_manager import configuration
from graphql_api.operation import count_unsent_with

ARRIVES_WITHIN_SECONDS = 1.0
"""For the first request of an accepted connection, when the server shuts down."""

HEAD_BYTES, HEAD_SECONDS, BODY_SECONDS = 65_536, 10.0, 60.0
HEADER_OVERHEAD = 32
"""Bytes for which a header counts besides its name and value, as it takes memory even when it is empty."""

PIPELINED = 32
"""Requests that may wait behind one that is being answered. A connection with more is closed after their answers."""

REST_BYTES = 25_165_824
"""What is read of a body after its request was answered without it."""

STALLED_MS = 60_000
"""The kernel closes a connection whose client has read nothing for this long."""

SLOWEST_SECONDS = 300.0
"""A client that has not read what waits for it by then loses its connection."""

LARGEST_WEBSOCKET_MESSAGE = 256 * 1024
SPARE_FILES = 128
"""File descriptors that are not for clients: databases, engines, and files."""


class FrontDoor(HttpToolsProtocol):
    """uvicorn's protocol with limits. When the server shuts down, an accepted connection may still send a request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Also when another program than `serve` has started uvicorn.
        self.config.ws_max_size = LARGEST_WEBSOCKET_MESSAGE
        self.config.ws_per_message_deflate = False
        if isinstance(self.app, ProxyHeadersMiddleware):
            # By default, uvicorn believes the forwarded address of each local client. The application has its own.
            self.app = self.app.app
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = self._rest_bytes = self._unparsed_bytes = 0
        """Of the present head with its trailers; of a body after its answer; since the parser has told anything."""
        self._has_parsed = False
        self._ends = False
        """Nothing more is parsed. What was queued is answered, then the connection is closed."""

    # ------------------------------------------------------------------ connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        count_unsent_with(self._unsent)
        if sys.platform == "linux" and (raw := transport.get_extra_info("socket")) is not None:
            if raw.family in {socket.AF_INET, socket.AF_INET6}:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
        if len(self.connections) > most_connections():
            self._end(HTTPStatus.SERVICE_UNAVAILABLE, "The server has as many connections as it takes.")
        else:
            self._set_deadline(HEAD_SECONDS)

    def _unsent(self) -> int:
        """The bytes that wait for clients to read them, on all connections."""
        transports = (getattr(connection, "transport", None) for connection in self.connections)
        return sum(transport.get_write_buffer_size() for transport in transports if transport is not None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_deadline(None)
        self._keep_open()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(SLOWEST_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._keep_open()

    def _keep_open(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def shutdown(self) -> None:
        if self.cycle is None:
            self.loop.call_later(ARRIVES_WITHIN_SECONDS, self._shut)
        else:
            super().shutdown()

    def _shut(self) -> None:
        # A connection that has become a WebSocket meanwhile is no longer ours to close.
        if self in self.connections:
            super().shutdown()

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        if self.flow.read_paused:
            # It is not the client that is slow: nothing is read until earlier requests are answered.
            self._set_deadline(HEAD_SECONDS)
        elif self._in_head:
            self._end(HTTPStatus.REQUEST_TIMEOUT, f"The request's head took longer than {HEAD_SECONDS:g} s.")
        else:
            if self.cycle is not None and not self.cycle.response_started and not self.pipeline:
                self._answer(HTTPStatus.REQUEST_TIMEOUT, f"The request's body took longer than {BODY_SECONDS:g} s.")
            self._ends = True
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _end(self, status: HTTPStatus, message: str) -> None:
        """Answer what is queued, or else with this status, and close the connection."""
        self._ends = True
        self._set_deadline(None)
        if self._is_answering():
            self.flow.pause_reading()
        else:
            self._answer(status, message)
            self.transport.close()

    def _answer(self, status: HTTPStatus, message: str) -> None:
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        rest = f"content-length: {len(message) + 1}\r\nconnection: close\r\n\r\n{message}\n"
        self.transport.write(f"{head}{rest}".encode())

    # ------------------------------------------------------------------ requests

    def data_received(self, data: bytes) -> None:
        if self._ends:
            return
        self._has_parsed = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            if not self._ends:
                self._end(HTTPStatus.BAD_REQUEST, "Invalid HTTP request received.")
            return
        # An unfinished header, trailer or extension of a chunk, which the parser keeps to itself.
        self._unparsed_bytes = 0 if self._has_parsed else self._unparsed_bytes + len(data)
        if self._unparsed_bytes > HEAD_BYTES and not self._ends:
            self._end_at_head()

    def _upgrade(self, rest: bytes) -> None:
        if self._ends:
            return
        if not self._should_upgrade():
            # It was answered as a request without an upgrade; others may follow it.
            if rest:
                self.data_received(rest)
        elif self._is_answering():
            self._end(HTTPStatus.BAD_REQUEST, "A WebSocket must not be opened behind another request.")
        else:
            self._set_deadline(None)
            self._unset_keepalive_if_required()
            self.handle_websocket_upgrade()
            if rest:
                # Frames that arrived together with the handshake.
                self.transport.get_protocol().data_received(rest)  # type: ignore[attr-defined]

    def _end_at_head(self) -> None:
        if self._is_answering() and self.cycle.more_body:
            # Its body never ends, so the application would wait for it.
            self._ends = True
            self.transport.close()
        else:
            self._end(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The request's head is larger than {HEAD_BYTES} bytes."
            )

    def on_message_begin(self) -> None:
        self._has_parsed = True
        if not self._ends:
            super().on_message_begin()
            self._unset_keepalive_if_required()
            self._set_deadline(HEAD_SECONDS)
            self._in_head, self._head_bytes = True, 0

    def on_url(self, url: bytes) -> None:
        self._has_parsed = True
        if not self._ends:
            super().on_url(url)
            self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._has_parsed = True
        if self._ends:
            return
        if self._in_head:
            super().on_header(name, value)
        self._count_head(len(name) + len(value) + HEADER_OVERHEAD)

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            self._end_at_head()
            raise ConnectionAbortedError

    def on_headers_complete(self) -> None:
        self._has_parsed, self._in_head = True, False
        if self._ends:
            return
        # The answer to an earlier request may have set it since this one began.
        self._unset_keepalive_if_required()
        if len(self.pipeline) >= PIPELINED:
            self._ends = True
            self._set_deadline(None)
        else:
            self._set_deadline(BODY_SECONDS)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_parsed = True
        if self._ends:
            return
        super().on_body(body)
        if self.cycle is not None and self.cycle.response_complete:
            self._rest_bytes += len(body)
            if self._rest_bytes > REST_BYTES:
                self._ends = True
                self.transport.close()

    def on_message_complete(self) -> None:
        self._has_parsed = True
        if not self._ends:
            self._set_deadline(None)
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._rest_bytes = 0
        if self._in_head:
            self._unset_keepalive_if_required()
        if self._ends:
            self.flow.pause_reading()
            if self.cycle.response_complete:
                self.transport.close()


def most_connections() -> int:
    """How many connections this process accepts: as configured, and as its file descriptors allow."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most: int = configuration.current().max_connections
    return most if files == resource.RLIM_INFINITY else min(most, max(files - SPARE_FILES, 1))


def protect_uvicorn() -> None:
    """Give the limits to a uvicorn that was started without `serve`, and so has chosen its protocol class already."""

    def make(_: type[HttpToolsProtocol], *__: Any, **___: Any) -> FrontDoor:
        return object.__new__(FrontDoor)  # whose __init__ is called next

    def replace(_: type[H11Protocol], *args: Any, **kwargs: Any) -> FrontDoor:
        return FrontDoor(*args, **kwargs)

    HttpToolsProtocol.__new__ = make  # type: ignore[assignment, method-assign]
    H11Protocol.__new__ = replace  # type: ignore[assignment, method-assign]
