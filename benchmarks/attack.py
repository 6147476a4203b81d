"""What hostile clients cost: every class of ../docs/security.md, four clients at once, against a server of its own.

    python -m benchmarks.attack [--seconds 5] [--rest 60] [--only NAME ...]

For each class: how long `GET /livez` of another client took meanwhile, the server's CPU time for each request, its
answers by status, and its most memory. At the end: the memory after a rest, beside that of the start. The attackers are
a process of their own; with two cores, `/livez` waits for them too, as the first row shows.
"""

import argparse
import collections
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks import fleet
from benchmarks.over_http import ROOT, cpu_seconds, resident, serving

CLIENTS = 4
LIVEZ_SECONDS = 0.0005
"""The server's CPU time for one probe, which is not the attackers'."""

MEGABYTE = 2**20
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
Answers = collections.Counter[str]


@dataclass
class Place:
    """Where the server is, and a token of a viewer."""

    host: str
    port: int
    viewer: str


def _connect(place: Place) -> socket.socket:
    return socket.create_connection((place.host, place.port), timeout=5)


def _flood(place: Place, start: bytes, piece: bytes, most: int) -> str:
    """Send `piece` again and again, without reading, until the server ends it."""
    with _connect(place) as client:
        client.settimeout(2)
        try:
            client.sendall(start)
            for _ in range(most):
                client.sendall(piece)
        except TimeoutError:
            return "not read"
        except OSError:
            return "closed"
    return "read to the end"


def _post(place: Place, token: str, body: bytes) -> str:
    """The status of one request."""
    head = (
        f"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with _connect(place) as client, suppress(OSError):
        client.settimeout(30)
        with suppress(OSError):  # the answer comes before the body was read
            client.sendall(head.encode() + body)
        answer = client.recv(65_536)
        while client.recv(65_536):
            pass
        return answer[9:12].decode() or "closed"
    return "closed"


def _query(query: str, variables: Any = None) -> bytes:
    return json.dumps({"query": query, "variables": variables or {}}).encode()


PLAN = "query($j: [JobInput!]!) { planRouting(jobs: $j) { placements { __typename } } }"
ALIASES = " ".join(f"a{at}: __schema {{ types {{ name fields {{ name }} }} }}" for at in range(90))
SAME_FIELDS = "{ " + "hosts { edges { node { name } } } " * 500 + "}"
SUGGESTED = "__typename ... on RoutingRefused { suggestions { __typename } }"
PLANS = "query($j: [JobInput!]!) {" + " ".join(
    f"a{at}: planRouting(jobs: $j) {{ placements {{ {SUGGESTED} }} }}" for at in range(99)
) + "}"  # fmt: skip
HOSTS = "hosts(first: 100) { edges { node { id name region engine isActive routingWeight health { status error } } } }"
NESTED = "{ jobs { edges { node { attempts { decision { job { attempts { decision { job { attempts { id }}}}}}}}}}}"
FRAGMENTS = "{ ...f0 } " + " ".join(
    f"fragment f{at} on Query {{ ...f{at + 1} ...f{at + 1} }}" for at in range(60)
) + " fragment f60 on Query { eventCursor }"  # fmt: skip


def _filter(depth: int) -> dict[str, Any]:
    nested: dict[str, Any] = {"labels": {f"k{at}": "v" for at in range(64)}}
    for _ in range(depth):
        nested = {"OR": nested, "AND": nested}
    return nested


def _commands(place: Place) -> str:
    """Long commands, asked for many times by a client that does not read."""
    body = _query(
        "{" + " ".join(f"a{at}: jobs(first: 100) {{ edges {{ node {{ command }} }} }}" for at in range(60)) + "}"
    )
    head = (
        f"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {place.viewer}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with _connect(place) as client:
        client.sendall(head.encode() + body)
        client.settimeout(3)
        with suppress(OSError):
            return client.recv(12)[9:].decode() or "closed"
    return "no answer"


def _half_open(place: Place) -> str:
    clients = []
    with suppress(OSError):
        for _ in range(50):
            clients.append(_connect(place))
            clients[-1].sendall(b"GET /livez HTTP/1.1\r\nA: ")
    for client in clients:
        client.close()
    return f"{len(clients)} opened"


def _distinct(place: Place) -> str:
    name = os.urandom(6).hex()
    return _post(
        place,
        place.viewer,
        _query(f"query Q{name} {{ " + " ".join(f"x{name}{at}: eventCursor" for at in range(90)) + " }"),
    )


def _frames(place: Place) -> str:
    """A WebSocket message that is answered with a reason for closing."""
    with _connect(place) as client, suppress(OSError):
        client.sendall(
            b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
        )
        text = json.dumps({"type": "x" * 20_000}).encode()
        client.sendall(b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text)
        client.settimeout(5)
        answer = b""
        while b"\x88" not in answer and (piece := client.recv(4096)):
            answer += piece
        return "closed" if b"101" in answer[:20] else "refused"
    return "closed"


def _ask(query: str, variables: Any = None) -> Callable[[Place], str]:
    return lambda place: _post(place, place.viewer, _query(query, variables))


def _raw(body: bytes) -> Callable[[Place], str]:
    return lambda place: _post(place, place.viewer, body)


def _send(start: bytes, piece: bytes) -> Callable[[Place], str]:
    return lambda place: _flood(place, start, piece, 50)


CHUNKED = b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
FILTERED = "query($f: JobFilter) { jobs(filters: $f) { totalCount } }"
SMALL_JOBS = [{"image": "a", "memoryLimitMb": at} for at in range(1, 101)]

CLASSES: dict[str, Callable[[Place], str]] = {
    "probes alone": lambda place: _post(place, "", b""),
    "chunks without end": _send(CHUNKED, b"100000\r\n" + bytes(MEGABYTE) + b"\r\n"),
    "pipelined, never read": _send(b"", LIVEZ * (MEGABYTE // len(LIVEZ))),
    "many headers": _send(b"GET /livez HTTP/1.1\r\n", b"A:\r\n" * (MEGABYTE // 4)),
    "one long header": _send(b"GET /livez HTTP/1.1\r\nA: ", b"x" * MEGABYTE),
    "half-open heads": _half_open,
    "wrong tokens": lambda place: _post(place, os.urandom(8).hex(), _query("{ eventCursor }")),
    "16 MB of variables": _ask(PLAN, {"j": [{"image": "a"}] * 1_000_000}),
    "1 MB of variables": _ask(PLAN, {"j": [{"image": "a"}] * 50_000}),
    "1 MB of nulls": _ask(PLAN, {"j": [None] * 170_000}),
    "1 MB of empty lists": _raw(b'{"query": "{ eventCursor }", "variables": {"x": [' + b"[]," * 340_000 + b"[]]}}"),
    "4,900 jobs to plan": _ask(PLAN, {"j": [{"image": "a"}] * 4_900}),
    "1,000 jobs to plan, nothing shown": _ask(
        "query($j: [JobInput!]!) {"
        + " ".join(f"a{at}: planRouting(jobs: $j) {{ __typename }}" for at in range(99))
        + "}",
        {"j": [{"image": "a"}] * 1_000},
    ),
    "99 plans of 100 jobs": _ask(PLANS, {"j": SMALL_JOBS}),
    "nested filters": _ask(FILTERED, {"f": _filter(5)}),
    "introspection, 90 aliases": _ask("{" + ALIASES + "}"),
    "hosts, 60 aliases": _ask("{" + " ".join(f"a{at}: {HOSTS}" for at in range(60)) + "}"),
    "nested attempts": _ask(NESTED),
    "duplicate fields": _ask(SAME_FIELDS),
    "exponential fragments": _ask(FRAGMENTS),
    "brackets": _ask("{" * 3_000),
    "nested JSON": _raw(b'{"query": ' + b"[" * 500_000),
    "a number of 4,400 digits": _ask("{ jobs(first: " + "9" * 4_400 + ") { totalCount } }"),
    "distinct documents": _distinct,
    "long commands, not read": _commands,
    "closing reasons": _frames,
}


def _attack(name: str, place: Place, seconds: float, result: Any) -> None:
    """In a process of its own: four clients that repeat one attack."""
    answers: Answers = collections.Counter()
    until = time.monotonic() + seconds

    def repeat() -> None:
        while time.monotonic() < until:
            try:
                answers[CLASSES[name](place)] += 1
            except OSError:
                answers["no connection"] += 1

    clients = [threading.Thread(target=repeat) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    result.put(answers)


def probe(place: Place, until: Callable[[], bool], pid: int) -> tuple[list[float], float]:
    """How long each `GET /livez` took, in ms, and the most memory meanwhile."""
    taken, most = [], 0.0
    while not until():
        began = time.perf_counter()
        with _connect(place) as client:
            client.settimeout(30)
            client.sendall(LIVEZ)
            client.recv(4096)
        taken.append((time.perf_counter() - began) * 1000)
        most = max(most, resident(pid))
        time.sleep(0.005)
    return taken, most


def populate(url: str, token: str) -> None:
    """Hosts, and jobs with long commands that wait."""
    host = "mutation($input: HostInput!) { createHost(input: $input) { __typename } }"
    jobs = "mutation($inputs: [JobInput!]!) { submitJobs(inputs: $inputs) { __typename } }"
    config = {"accept": "any", "launch_ms": 1, "run_ms": 1}
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        for at in range(20):
            host_input = {"name": f"sim-{at}", "executorType": "SIMULATED", "config": config, "maxMemoryMb": 1024}
            sent = http.post("/graphql", json={"query": host, "variables": {"input": host_input}}).json()
            assert sent == {"data": {"createHost": {"__typename": "ExecutorHost"}}}, sent
        waiting = {"image": "a", "memoryLimitMb": 2048, "command": ["x" * 100_000]}
        for _ in range(10):
            http.post("/graphql", json={"query": jobs, "variables": {"inputs": [waiting] * 10}}).raise_for_status()


def attack(name: str, place: Place, seconds: float, pid: int) -> dict[str, Any]:
    """The figures of one class."""
    answers: Any = multiprocessing.get_context("spawn").Queue()
    attackers = multiprocessing.get_context("spawn").Process(target=_attack, args=(name, place, seconds, answers))
    attackers.start()
    began = cpu_seconds(pid)
    taken, most = probe(place, lambda: not attackers.is_alive(), pid)
    spent = cpu_seconds(pid) - began - len(taken) * LIVEZ_SECONDS
    told: Answers = answers.get()
    return {
        "livez p50": statistics.median(taken),
        "p99": statistics.quantiles(taken, n=100)[98],
        "max": max(taken),
        "CPU ms": max(spent, 0) * 1000 / max(told.total(), 1),
        "peak MB": most,
        "answers": dict(told),
    }


def main(arguments: argparse.Namespace) -> None:
    table = fleet.Table()
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(CONTAINER_MANAGER_HOME=home, CONTAINER_MANAGER_LOG_LEVEL="error")
        with serving("-m", "container_manager", "serve", "--port", "0") as (url, pid):
            address = urlsplit(url)
            tokens = {role: _token(role) for role in ("admin", "viewer")}
            populate(url, tokens["admin"])
            place = Place(address.hostname or "", address.port or 0, tokens["viewer"])
            # From now on it is known, also while wrong tokens come from its address.
            assert _post(place, place.viewer, _query("{ eventCursor }")) == "200"
            attack("probes alone", place, 1, pid)
            start = resident(pid)
            for name in arguments.only or CLASSES:
                table.row(name, **attack(name, place, arguments.seconds, pid))
            time.sleep(arguments.rest)
            table.row("memory, MB", start=start, after_rest=resident(pid))
    if arguments.json:
        table.as_json(arguments.json)


def _token(role: str) -> str:
    command = [sys.executable, "-m", "container_manager", "token", "create", "--name", f"bench-{role}", "--role", role]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rest", type=float, default=60)
    parser.add_argument("--only", nargs="*", default=[], choices=CLASSES)
    parser.add_argument("--json", default="", help="a file for the figures, or - for stdout")
    main(parser.parse_args())
