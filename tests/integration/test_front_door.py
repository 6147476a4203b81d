"""What clients may do before their request reaches the application: size, number and time are bounded."""

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from container_manager.domain.kinds import Role
from graphql_api import front_door, operation
from tests.eventually import eventually
from tests.server import make_token

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
Connect = Callable[[], Awaitable["Connection"]]


class Connection:
    """A raw connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, url: str) -> "Connection":
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port))

    async def send(self, data: bytes) -> bool:
        """Whether the server took it, and has not closed the connection."""
        try:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), 10)
        except (ConnectionError, TimeoutError):
            return False
        return not self.writer.is_closing()

    async def rest(self) -> bytes:
        """Everything that the server sends until it closes the connection."""
        received = b""
        try:
            async with asyncio.timeout(20):
                while piece := await self.reader.read(65_536):
                    received += piece
        except ConnectionError:
            pass
        return received


@pytest.fixture
async def connect(url: str) -> AsyncIterator[Connect]:
    """Open connections to the server, which are closed after the test."""
    opened: list[Connection] = []

    async def open_one() -> Connection:
        opened.append(await Connection.to(url))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.writer.close()
        with suppress(ConnectionError):
            await connection.writer.wait_closed()


async def alive(url: str) -> bool:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{url}/livez")).text == "ok\n"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(20_000)) + b"\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 10_000_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"x" * 1_000_000 + b": b\r\n\r\n",
    ],
    ids=["many headers", "a long value", "a long path", "a long name"],
)
async def test_a_head_is_bounded(connect: Connect, url: str, head: bytes) -> None:
    connection = await connect()
    await connection.send(head)
    answer = await connection.rest()
    # A client that goes on sending may get a reset instead of the answer.
    assert answer.startswith(b"HTTP/1.1 431 ") or not answer
    assert await alive(url)


@pytest.mark.parametrize("begun", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: loc", LIVEZ + b"GET"])
async def test_a_head_must_arrive_in_time(
    connect: Connect, url: str, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(front_door, "HEAD_SECONDS", 0.2)
    connection = await connect()
    await connection.send(begun)
    answer = await connection.rest()
    assert (b"HTTP/1.1 408 " in answer) == (not begun.endswith(b"\n") and begun != b"")


async def test_a_body_must_arrive_in_time(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(front_door, "BODY_SECONDS", 0.2)
    connection = await connect()
    head = f"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {await make_token(Role.VIEWER)}\r\n"
    await connection.send(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
    assert (await connection.rest()).startswith(b"HTTP/1.1 408 ")
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("path", ["x", "graphql", "livez"])
async def test_the_body_of_a_request_that_needs_none_is_not_kept(connect: Connect, url: str, path: str) -> None:
    connection = await connect()
    await connection.send(f"POST /{path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    piece = b"10000\r\n" + bytes(65_536) + b"\r\n"
    sent = 0
    while await connection.send(piece) and sent < 1000 * len(piece):
        sent += len(piece)
    assert sent < 1000 * len(piece), "the server closes the connection"
    assert await alive(url)


async def test_a_client_that_sends_its_body_after_it_was_refused_goes_on(connect: Connect) -> None:
    connection = await connect()
    for _ in range(2):
        await connection.send(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
        assert (await connection.reader.readuntil(b"\r\n\r\nNot Found")).startswith(b"HTTP/1.1 404 ")
        await connection.send(b"hello")
    await connection.send(LIVEZ)
    assert b"HTTP/1.1 200 " in await connection.rest()


async def test_requests_that_are_pipelined_are_answered_in_order_up_to_a_bound(connect: Connect) -> None:
    few = await connect()
    await few.send(LIVEZ * (front_door.PIPELINED + 1))
    assert (await few.rest()).count(b"HTTP/1.1 200 ") == front_door.PIPELINED + 1
    many = await connect()
    await many.send(LIVEZ * 20_000)
    assert 0 < (await many.rest()).count(b"HTTP/1.1 200 ") < 2000


async def test_a_client_that_never_reads_is_not_read_either(url: str) -> None:
    address = urlsplit(url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (address.hostname, address.port))
        sent = 0
        try:
            async with asyncio.timeout(3):
                while sent < 50_000_000:
                    await loop.sock_sendall(client, LIVEZ * 10_000)
                    sent += len(LIVEZ) * 10_000
        except (TimeoutError, ConnectionError):
            pass
        assert sent < 50_000_000
        assert await alive(url)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_connections_are_bounded(connect: Connect, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_door, "most_connections", lambda: 3)
    held = [await connect() for _ in range(3)]
    refused = await connect()
    assert b"HTTP/1.1 503 " in await refused.rest()
    held[0].writer.close()
    await held[0].writer.wait_closed()
    more = await connect()
    await more.send(LIVEZ)
    assert (await more.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("nonsense", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
async def test_what_is_no_http_is_refused(connect: Connect, url: str, nonsense: bytes) -> None:
    connection = await connect()
    await connection.send(nonsense)
    assert b"HTTP/1.1 400 " in await connection.rest()


async def test_frames_that_arrive_with_the_handshake_are_read(connect: Connect) -> None:
    connection = await connect()
    message = (
        f'{{"type":"connection_init","payload":{{"Authorization":"Bearer {await make_token(Role.VIEWER)}"}}}}'.encode()
    )
    frame = bytes([0x81, 0x80 | 126]) + struct.pack(">H", len(message)) + bytes(4) + message
    handshake = (
        "GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
    )
    await connection.send(handshake.encode() + frame)
    async with asyncio.timeout(10):
        await connection.reader.readuntil(b"connection_ack")


async def test_answers_carry_secure_headers(url: str) -> None:
    async with httpx.AsyncClient() as client:
        for path in ("livez", "nowhere", "graphql"):
            headers = (await client.get(f"{url}/{path}")).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"


# ------------------------------------------------------------------ one connection, step by step


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the path; /slow takes longer than the keep-alive time, /body waits for the body."""
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    if scope["path"] == "/body":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": scope["path"].encode()[:5].ljust(5)})


@asynccontextmanager
async def door(app: Any, state: ServerState | None = None) -> AsyncIterator[str]:
    """A server of nothing but uvicorn's protocol, with a short keep-alive time."""
    config = uvicorn.Config(app, http=front_door.FrontDoor, lifespan="off", timeout_keep_alive=0.2)
    state = state or ServerState()

    def protocol() -> front_door.FrontDoor:
        return front_door.FrontDoor(config=config, server_state=state, app_state={})

    async with await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
MANY = front_door.PIPELINED + 1


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        ([get("/slow"), get("/one")], ["/slow", "/one"]),
        ([get("/slow") + b"garbage\x00\r\n\r\n"], ["/slow"]),
        ([get("/slow") + get("/one", "A: " + "x" * 70_000)], ["/slow"]),
        ([get("/slow") + get("/one") * MANY + b"GET / HT"], ["/slow"] + ["/one"] * (MANY - 1)),
        ([get("/slow") + get("/one") * (MANY - 1) + get("/ws", *UPGRADE)], ["/slow"] + ["/one"] * (MANY - 1)),
        ([get("/slow") + get("/ws", *UPGRADE)], ["/slow"]),
        ([get("/a", "Connection: Upgrade", "Upgrade: h2c") + get("/b")], ["/a", "/b"]),
        (
            [b"POST /body HTTP/1.1\r\nHost: a\r\n",
             b"Content-Length: 100000\r\n\r\n" + bytes(100_000) + b"GET /a HT", b"TP/1.1\r\nHost: a\r\n\r\n"],
            ["/body", "/a"],
        ),
        ([b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
          b"3\r\nabc\r\n0\r\nA: trailer\r\n\r\n" + get("/a")], ["/body", "/a"]),
    ],
    ids=["pipelined", "garbage", "a long head", "too many", "too many and a socket", "a socket", "h2c", "cut", "trailers"],
)  # fmt: skip
async def test_what_was_asked_before_is_answered(
    sent: list[bytes], answers: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with door(app) as url:
        connection = await Connection.to(url)
        for piece in sent:
            await connection.send(piece)
            # So that the server reads each alone.
            await asyncio.sleep(0.01)
        received = await connection.rest()
        connection.writer.close()
    bodies = [part.split(b"\r\n\r\n")[1][:5].decode().strip() for part in received.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == answers
    assert "Traceback" not in caplog.text


async def test_a_head_that_begins_before_an_answer_keeps_its_connection() -> None:
    async with door(app) as url:
        connection = await Connection.to(url)
        second = get("/slow")
        await connection.send(get("/slow") + second[:9])
        await connection.reader.readuntil(b"/slow")
        await connection.send(second[9:])
        assert b"/slow" in await connection.rest()
        connection.writer.close()


@pytest.mark.parametrize("begun", [b"0\r\nA: ", b"1;a="], ids=["trailer", "extension"])
async def test_what_a_parser_keeps_to_itself_is_bounded(begun: bytes) -> None:
    async with door(app) as url:
        connection = await Connection.to(url)
        await connection.send(b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + begun)
        sent = 0
        while sent < 100 and await connection.send(b"x" * 65_536):
            sent += 1
        assert sent < 100
        connection.writer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux has TCP_USER_TIMEOUT.")
async def test_a_client_that_reads_too_slowly_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_door, "SLOWEST_SECONDS", 0.2)
    state = ServerState()

    async def large(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": bytes(64 * 2**20)})

    async with door(large, state) as url:
        connection = await Connection.to(url)
        await connection.send(LIVEZ)
        await eventually(lambda: operation._total.unsent() > 2**20, 5)
        await eventually(lambda: not state.connections, 10)
        assert operation._total.unsent() == 0
        connection.writer.close()


async def test_a_client_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_door, "STALLED_MS", 1000)
    state = ServerState()

    async def endless(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        while state.connections:
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})

    async with door(endless, state) as url:
        connection = await Connection.to(url)
        await connection.send(LIVEZ)
        await eventually(lambda: state.connections, 5)
        await eventually(lambda: not state.connections, 30)
        connection.writer.close()
