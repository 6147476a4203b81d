"""Attacks by clients without a token on a server process: it answers others, and its memory stays small."""

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.eventually import eventually_sync
from tests.processes import ROOT, Served, environment

MEGABYTE = 2**20
MOST = 300 * MEGABYTE
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _most_memory(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


@pytest.fixture(params=["serve", "uvicorn"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The URL and process id of a server, started by the command or by uvicorn itself."""
    if request.param == "serve":
        with Served(tmp_path) as served:
            yield served.url, served.process.pid
        return
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "asgi:application", "--port", "0"],
            env=environment(tmp_path), cwd=ROOT, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        found = eventually_sync(lambda: re.search(r"http://[\d.]+:\d+", log.read_text()), 30)
        yield found[0], process.pid
    finally:
        process.kill()
        process.wait(10)


def _chunked_body(send: Callable[[bytes], None]) -> None:
    send(b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(300):
        send(b"100000\r\n" + bytes(MEGABYTE) + b"\r\n")


def _pipelined(send: Callable[[bytes], None]) -> None:
    for _ in range(100):
        send(LIVEZ * (MEGABYTE // len(LIVEZ)))


def _many_headers(send: Callable[[bytes], None]) -> None:
    send(b"GET /livez HTTP/1.1\r\n")
    for _ in range(70):
        send(b"A:\r\n" * (MEGABYTE // 4))


def _one_long_header(send: Callable[[bytes], None]) -> None:
    send(b"GET /livez HTTP/1.1\r\nA: ")
    for _ in range(300):
        send(b"x" * MEGABYTE)


def test_what_a_client_sends_without_end_takes_neither_memory_nor_disk(server: tuple[str, int]) -> None:
    url, pid = server
    address = urlsplit(url)
    for attack in (_chunked_body, _pipelined, _many_headers, _one_long_header) * 2:
        with socket.create_connection((address.hostname, address.port), timeout=2) as client:
            # The server closes the connection, or stops reading.
            with pytest.raises(OSError, match=r"reset|pipe|timed out"):
                attack(client.sendall)
            assert httpx.get(f"{url}/livez", timeout=10).text == "ok\n"
    assert _most_memory(pid) < MOST
