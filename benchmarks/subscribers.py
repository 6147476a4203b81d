"""Many subscribers in one process: WebSockets that do as little as possible with what arrives.

    python -m benchmarks.subscribers PORT TOKEN COUNT SECONDS QUERY

For each line on stdin, prints one JSON object about the next SECONDS, and longer while a subscriber has received
nothing: deliveries, milliseconds from an event's commit to its arrival (p50, p99), and whether every tenth subscriber
saw the same events, in order and without a gap.
"""

import asyncio
import json
import re
import statistics
import sys
import time
from datetime import datetime
from functools import partial
from typing import Any

EVENT = re.compile(rb'"cursor":"(\d+)".{0,80}?"at":"([^"]+)"')
HELLO = (
    b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)
CURSOR = re.compile(rb'"cursor":"(\d+)"')
ACK = b'"connection_ack"'
THOROUGH = 10
"""One in so many keeps all cursors; the others count, and look at the oldest event of each message."""

TEXT, PING, PONG = 0x81, 0x89, 0x8A


def frame(data: bytes, kind: int = TEXT) -> bytes:
    """A client's frame; masked with zeros."""
    size = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + len(data).to_bytes(2, "big")
    return bytes([kind]) + size + b"\0\0\0\0" + data


class Subscriber(asyncio.Protocol):
    """One connection with one subscription."""

    def __init__(self, token: str, query: str, moments: dict[bytes, float], *, thorough: bool) -> None:
        self._token, self._query, self._moments = token, query, moments
        self._thorough = thorough
        self._buffer = bytearray()
        self._open = False
        self.ready = asyncio.get_running_loop().create_future()
        self.received = asyncio.Event()
        self.deliveries = 0
        self.cursors: list[int] = []
        self.delays: list[float] = []

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport
        transport.write(HELLO)

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self._buffer += data
        if not self._open:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            assert b" 101 " in head, bytes(head)
            self._open, self._buffer = True, rest
            init = {"type": "connection_init", "payload": {"Authorization": f"Bearer {self._token}"}}
            self._transport.write(frame(json.dumps(init).encode()))
        position, buffer = 0, self._buffer
        while len(buffer) - position >= 2:
            size, start = buffer[position + 1], position + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, start = int.from_bytes(buffer[start : start + width], "big"), start + width
            if len(buffer) < start + size:
                break
            if buffer[position] == PING:
                self._transport.write(frame(buffer[start : start + size], PONG))
            else:
                self._message(bytes(buffer[start : start + size]), now)
            position = start + size
        del buffer[:position]

    def _message(self, data: bytes, now: float) -> None:
        if oldest := EVENT.search(data):
            at = oldest[2]
            if at not in self._moments:
                self._moments[at] = datetime.fromisoformat(at.decode()).timestamp()
            self.received.set()
            self.delays.append(now - self._moments[at])
            self.deliveries += data.count(b'"cursor"')
            if self._thorough:
                self.cursors += map(int, CURSOR.findall(data))
        elif ACK in data:
            subscribe = {"id": "1", "type": "subscribe", "payload": {"query": self._query}}
            self._transport.write(frame(json.dumps(subscribe).encode()))
            self.ready.set_result(None)
        else:
            raise RuntimeError(data.decode(errors="replace"))

    def close(self) -> None:
        self._transport.close()


async def main(port: int, token: str, count: int, seconds: float, query: str) -> None:
    loop = asyncio.get_running_loop()
    moments: dict[bytes, float] = {}
    subscribers = []
    for number in range(count):
        new = partial(Subscriber, token, query, moments, thorough=number % THOROUGH == 0)
        _, subscriber = await loop.create_connection(new, "127.0.0.1", port)
        await subscriber.ready
        subscribers.append(subscriber)
    await asyncio.sleep(1)
    print("subscribed", flush=True)
    while sys.stdin.readline():
        for subscriber in subscribers:
            subscriber.received.clear()
            subscriber.delays.clear()
            subscriber.deliveries = 0
        await asyncio.sleep(seconds)
        async with asyncio.timeout(30):
            await asyncio.gather(*(subscriber.received.wait() for subscriber in subscribers))
        print(json.dumps(seen_by(subscribers)), flush=True)
    for subscriber in subscribers:
        subscriber.close()


def seen_by(subscribers: list[Subscriber]) -> dict[str, object]:
    delays = [1000 * delay for subscriber in subscribers for delay in subscriber.delays]
    subscribers, all_of_them = subscribers[::THOROUGH], subscribers
    # What each has had between the first event that all have and the last one that all have must be the same.
    first = max(subscriber.cursors[0] for subscriber in subscribers)
    last = min(subscriber.cursors[-1] for subscriber in subscribers)
    seen = {tuple(cursor for cursor in s.cursors if first <= cursor <= last) for s in subscribers}
    (only,) = seen
    return {
        "deliveries": sum(subscriber.deliveries for subscriber in all_of_them),
        "p50": statistics.median(delays),
        "p99": statistics.quantiles(delays, n=100)[-1],
        "ordered": list(only) == sorted(set(only)),
        "gaps": only[-1] - only[0] + 1 - len(only),
    }


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]))
