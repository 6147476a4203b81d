"""Generated operations and malformed messages against a server process: scripts/fuzz --help

Each operation of hypothesis-graphql is sent twice: as it is, and with its arguments as variables, of which some have
values at the edges of their types. No answer may be a 5xx or an INTERNAL error, and the server's memory stays flat.
"""

import json
import random
import re
import socket
import string
import sys
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx
import hypothesis_graphql
from graphql import (
    ArgumentNode,
    DocumentNode,
    FieldNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    ListValueNode,
    NameNode,
    NullValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    StringValueNode,
    TypeInfo,
    TypeInfoVisitor,
    VariableNode,
    Visitor,
    build_schema,
    parse,
    print_ast,
    value_from_ast_untyped,
    visit,
)  # fmt: skip
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from tests.eventually import eventually_sync
from tests.processes import ROOT, Served

SCHEMA = build_schema((ROOT / "graphql_api/schema.graphql").read_text())
HOST = """mutation($input: HostInput!) { createHost(input: $input) { ... on ExecutorHost { id } } }"""
JOB = 'mutation { submitJob(input: {image: "a"}) { ... on ContainerJob { id decisions { id } } } }'
KINDS = {"host": "ExecutorHost", "decision": "RoutingDecision"}

SURROGATE = "\ud800"
NUMBERS = [0, 1, -1, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63, -(2**63) - 1, 10**30, 0.1, 1e308, -0.0, 1e-320, True]
TEXTS = [
    "", " ", "\0", "a\0b", "\x1b[31m", SURROGATE, "\u202e", "\U0001f600", "x" * 101, "x" * 300, "x" * 5000, "x" * 140_000,
    "/" * 300, "null", "0", "-1", "1e400", "NaN", "%s", "'; --", "../..", "${x}", "a=b", "http://[", "é" * 200,
]  # fmt: skip
MOMENTS = [
    "0001-01-01", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-23:59", "2024-02-30T00:00:00Z",
    "1970-01-01T00:00:00+14:00", "-0001-01-01T00:00:00Z", "2024-01-01T00:00:00.0000000000001Z", "T", "2024-W01-1",
]  # fmt: skip
JSONS = [None, {}, [], {"a": {"b": [1] * 50}}, "x", 1e308, 2**70, {"": ""}, {"\0": "\0"}, [[[[[]]]]], {"url": "x"}]
OTHERS = [None, [], {}, "x", 1, False]


@dataclass
class Edges:
    """Values at the edges of types; `known` are ids of objects that exist."""

    random: random.Random
    known: list[str]

    def known_for(self, name: str) -> str:
        """The id of an object of the kind that a field or argument names."""
        kind = next((kind for word, kind in KINDS.items() if word in name.lower()), "ContainerJob")
        return self.random.choice([one for one in self.known if _kind(one) == kind])

    def value(self, kind: GraphQLInputType, value: Any) -> Any:
        """The value, with some of its leaves at the edges of their types."""
        if isinstance(kind, GraphQLNonNull):
            return self.value(kind.of_type, value)
        if self.random.random() < 0.02:
            return self.random.choice(OTHERS)
        if isinstance(kind, GraphQLList) and isinstance(value, list):
            return [self.value(kind.of_type, one) for one in value] * self.random.choice([1, 1, 1, 1, 30])
        if isinstance(kind, GraphQLInputObjectType) and isinstance(value, dict):
            return {key: self.value(kind.fields[key].type, one) for key, one in value.items() if key in kind.fields}
        return self._leaf(kind, value) if self.random.random() < 0.3 else value

    def _leaf(self, kind: GraphQLInputType, value: Any) -> Any:
        if isinstance(kind, GraphQLEnumType):
            return self.random.choice([*kind.values, "NOTHING", 1])
        choices = {
            "Int": NUMBERS, "Float": NUMBERS, "Boolean": [True, False, 0, "true"], "DateTime": MOMENTS + TEXTS,
            "JSON": JSONS, "ID": [*TEXTS, *self.known * 20, *_bent(self.known)], "String": TEXTS + self.known,
        }  # fmt: skip
        chosen = self.random.choice(choices.get(str(kind), [value]))
        # It makes the whole body invalid.
        return chosen if chosen != SURROGATE or self.random.random() < 0.1 else value


def _bent(ids: list[str]) -> list[str]:
    kinds = {_kind(one) for one in ids}
    numbers = ["", "0", "-1", "9" * 18, "9" * 19, "9" * 5000, "1.5", "١", " 1", "1\0", "0x1", "+1", "1_0"]
    return [b64encode(f"{kind}:{number}".encode()).decode() for kind in kinds for number in numbers]


def _kind(known: str) -> str:
    return b64decode(known).decode().split(":")[0]


class _WithKnownIds(Visitor):
    """Gives most fields the id of an object that exists."""

    def __init__(self, edges: Edges) -> None:
        super().__init__()
        self._edges, self._field = edges, ""

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        self._field = node.name.value

    def enter_argument(self, node: ArgumentNode, *_: Any) -> Any:
        name = node.name.value
        if name.lower().endswith("id") and self._edges.random.random() < 0.8:
            known = self._edges.known_for(self._field + name)
            return ArgumentNode(name=node.name, value=StringValueNode(value=known))
        return None


class _AsVariables(Visitor):
    """Moves the arguments of fields into variables."""

    def __init__(self, types: TypeInfo, edges: Edges) -> None:
        super().__init__()
        self._types, self._edges = types, edges
        self.definitions: list[str] = []
        self.values: dict[str, Any] = {}

    def enter_argument(self, node: ArgumentNode, *_: Any) -> Any:
        kind = self._types.get_input_type()
        if kind is None:
            return None
        name = f"v{len(self.values)}"
        self.values[name] = self._edges.value(kind, value_from_ast_untyped(node.value))
        self.definitions.append(f"${name}: {kind}")
        return ArgumentNode(name=node.name, value=VariableNode(name=NameNode(value=name)))


def with_variables(document: DocumentNode, edges: Edges) -> tuple[str, dict[str, Any]]:
    """The document with its arguments as variables, and their values."""
    types = TypeInfo(SCHEMA)
    moved = _AsVariables(types, edges)
    text = print_ast(visit(document, TypeInfoVisitor(types, moved)))
    (operation,) = document.definitions
    assert isinstance(operation, OperationDefinitionNode)
    kind = operation.operation.value
    body = text.removeprefix(kind).lstrip()
    return f"{kind} F({', '.join(moved.definitions)}) {body}" if moved.values else text, moved.values


def operations() -> st.SearchStrategy[str]:
    """Queries and mutations of the schema."""
    strings = st.one_of(st.sampled_from(MOMENTS), st.text(max_size=20))
    scalars = {
        "DateTime": strings.map(lambda text: StringValueNode(value=text)),
        "JSON": st.sampled_from([ObjectValueNode(fields=()), ListValueNode(values=()), NullValueNode()]),
    }
    return hypothesis_graphql.from_schema(SCHEMA, custom_scalars=scalars)


@dataclass
class Found:
    """What went wrong, and how many requests there were."""

    requests: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass
class Target:
    """A server with objects of every kind."""

    served: Served
    seed: int
    known: list[str]
    found: Found = field(default_factory=Found)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.served.token}", "Content-Type": "application/json"}

    def memory(self) -> int:
        """MiB in use."""
        status = Path(f"/proc/{self.served.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) // 1024

    def post(self, http: httpx.Client, query: str, variables: dict[str, Any] | None = None) -> None:
        body = json.dumps({"query": query, "variables": variables or {}})
        self.found.requests += 1
        answer = http.post("/graphql", content=body)
        codes = [str(error.get("extensions", {}).get("code")) for error in _errors(answer)]
        for code in codes or ["none"]:
            self.found.codes[code] = self.found.codes.get(code, 0) + 1
        bad = answer.status_code >= 500 or {"INTERNAL", "UNAVAILABLE", "TIMEOUT"} & set(codes)
        if bad or "Traceback" in answer.text:
            self.found.faults.append(f"{answer.status_code} {answer.text[:500]}\n  for {body[:3000]}")


def _errors(answer: httpx.Response) -> list[dict[str, Any]]:
    try:
        return answer.json().get("errors") or []
    except (ValueError, AttributeError):
        return []


@contextmanager
def target(home: Path, seed: int, **variables: str) -> Iterator[Target]:
    """A server with two hosts, a job, its decision and events."""
    with Served(home, CONTAINER_MANAGER_LOG_FORMAT="json", **variables) as served:
        made = Target(served, seed, [])
        for number in range(2):
            config = {"accept": "any", "launch_ms": 1, "run_ms": 1}
            host = {"name": f"sim-{number}", "executorType": "SIMULATED", "config": config, "maxConcurrentJobs": 1000}
            made.known.append(served.query(served.token, HOST, input=host)["id"])
        job = served.query(served.token, JOB)
        made.known += [job["id"], *(decision["id"] for decision in job["decisions"])]
        yield made


def send_operations(to: Target, count: int) -> None:
    """Send `count` requests with generated operations."""
    edges = Edges(random.Random(to.seed), to.known)
    before = to.found.requests
    with httpx.Client(base_url=to.served.url, headers=to.headers, timeout=90) as http:

        @seeded(to.seed)
        @settings(
            max_examples=max(count // 2, 1),
            database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(operations())
        def run(query: str) -> None:
            if to.found.requests - before >= count:
                return
            document = visit(parse(query), _WithKnownIds(edges))
            to.post(http, print_ast(document))
            to.post(http, *with_variables(document, edges))

        run()
        while to.found.requests - before < count:
            # Hypothesis stops early when it finds nothing new.
            run = seeded(edges.random.randrange(2**32))(run)
            run()


# ------------------------------------------------------------------ malformed messages


def _request(to: Target, body: bytes) -> bytes:
    head = (
        f"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {to.served.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _malformed(to: Target, chance: random.Random) -> bytes:
    message = bytearray(_request(to, b'{"query": "{ eventCursor }"}'))
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(message) + 1)
        message[at : at + chance.randrange(8)] = chance.choice([
            b"", b"\0", b"\r\n", b"\n", b"\r\n\r\n", b": ", b"{" * 50, b"\xff\xfe", b"Transfer-Encoding: chunked\r\n",
            b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n", b"Upgrade: websocket\r\n",
            b"Expect: 100-continue\r\n", b"HTTP/9.9", b"GET ", chance.randbytes(chance.randrange(1, 40)),
        ])  # fmt: skip
    return bytes(message)


def send_malformed_http(to: Target, count: int) -> None:
    """Send `count` malformed requests, each on a connection of its own."""
    chance, address = random.Random(to.seed), urlsplit(to.served.url)
    for _ in range(count):
        to.found.requests += 1
        message = _malformed(to, chance)
        answer = b""
        with (
            socket.create_connection((address.hostname, address.port), timeout=20) as client,
            suppress(ConnectionError),
        ):
            client.sendall(message)
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(65_536):
                answer += piece
        if re.search(rb"(?m)^HTTP/1.1 5", answer) or b"INTERNAL" in answer or b"Traceback" in answer:
            to.found.faults.append(f"{answer[:500]!r}\n  for {message[:2000]!r}")


def _frame(chance: random.Random, known: list[str]) -> str | bytes:
    def junk(depth: int = 0) -> Any:
        leaves = [None, True, 0, -1, 1e308, 2**70, "", "x", "\0", "x" * 2000, *known]
        if depth > 3 or chance.random() < 0.5:
            return chance.choice(leaves)
        if chance.random() < 0.5:
            return [junk(depth + 1) for _ in range(chance.randrange(4))]
        names = ["id", "type", "payload", "query", "variables", "operationName", "extensions", "x"]
        return {chance.choice(names): junk(depth + 1) for _ in range(chance.randrange(5))}

    kinds = ["subscribe", "complete", "ping", "pong", "connection_init", "next", "error", "", 5, None]
    queries = ["{ eventCursor }", "{", "subscription { routingEvents { cursor } }", "subscription { x }", "", junk()]
    message = {
        "id": chance.choice(["1", "2", "", "x" * 2000, junk()]),
        "type": chance.choice(kinds),
        "payload": chance.choice([{"query": chance.choice(queries), "variables": junk()}, junk()]),
    }
    text = json.dumps(chance.choice([message, message, message, junk()]))
    return chance.choice([text, text, text, text[: len(text) // 2], text.encode(), chance.randbytes(20)])


def send_malformed_frames(to: Target, count: int) -> None:
    """Send `count` malformed WebSocket messages, up to ten on a connection."""
    chance = random.Random(to.seed)
    url = to.served.url.replace("http", "ws") + "/graphql"
    sent = 0
    while sent < count:
        with (
            suppress(ConnectionClosed, InvalidHandshake),
            connect(url, subprotocols=["graphql-transport-ws"], open_timeout=20, close_timeout=5) as client,
        ):
            if chance.random() < 0.9:
                payload = {"Authorization": f"Bearer {to.served.token}"}
                client.send(json.dumps({"type": "connection_init", "payload": payload}))
            for _ in range(10):
                sent += 1
                to.found.requests += 1
                frame = _frame(chance, to.known)
                client.send(frame)
                with suppress(TimeoutError):
                    while text := str(client.recv(timeout=0.01)):
                        if "INTERNAL" in text or "Traceback" in text:
                            to.found.faults.append(f"{text[:500]}\n  for {frame[:2000]!r}")


def errors_logged(to: Target) -> list[str]:
    """What the server logged as an error."""
    return [
        line[:2000] for line in to.served.stderr.read_text().splitlines() if '"level":"error"' in line.replace(" ", "")
    ]


@click.command()
@click.option("--operations", "count", default=20_000, show_default=True, help="Requests with generated operations.")
@click.option("--messages", default=2_000, show_default=True, help="Malformed messages, HTTP and WebSocket each.")
@click.option("--seed", default=None, type=int, help="Repeats a run.")
@click.option("--database-url", default="", help="PostgreSQL; the embedded database when not given.")
def main(count: int, messages: int, seed: int | None, database_url: str) -> None:
    """Send generated operations and malformed messages to a server of its own; exits with 1 if one had a fault."""
    seed = random.randrange(2**32) if seed is None else seed
    variables = {}
    if database_url:
        variables = {
            "CONTAINER_MANAGER_DATABASE_URL": database_url,
            "CONTAINER_MANAGER_SECRET_KEY": "".join(random.choices(string.ascii_letters, k=40)),
        }
    steps: list[tuple[Callable[[Target, int], None], int]] = [
        *[(send_operations, count // 4)] * 4, (send_malformed_http, messages), (send_malformed_frames, messages),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as home, target(Path(home) / "home", seed, **variables) as to:
        click.echo(f"seed {seed}; {to.memory()} MiB at the start")
        for number, (step, size) in enumerate(steps):
            to.seed = seed + number
            step(to, size)
            click.echo(f"{to.found.requests} requests, {len(to.found.faults)} faults, {to.memory()} MiB")
        click.echo(f"answers by error code: {to.found.codes}")
        faults = [*to.found.faults, *errors_logged(to)]
        eventually_sync(lambda: httpx.get(f"{to.served.url}/livez", timeout=10).text == "ok\n", 20)
    for fault in faults[:20]:
        click.echo(fault)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
