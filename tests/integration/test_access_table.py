"""Who may use which root field, over each transport: a new field without an entry fails."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import websockets
from django.utils import timezone
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    OperationType,
    build_schema,
    get_named_type,
    is_leaf_type,
)

from container_manager.domain.kinds import Role
from container_manager.models import ApiToken
from graphql_api.application import make_application
from tests.client import CREATE_HOST, Api
from tests.issuer import local_issuer, trusting
from tests.processes import ROOT
from tests.server import make_token, serving

VIEWER, OPERATOR, ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN
NEEDED = {
    "query": {
        VIEWER: {
            "node", "eventCursor", "hosts", "host", "capacity", "jobs", "job", "queue", "planRouting", "whyNot",
            "routingDecisions", "routingEvents", "viewer",
            "jobStats",
        },
        ADMIN: {"auditLog", "tokens"},
    },
    "mutation": {
        OPERATOR: {"submitJob", "submitJobs", "routeJob", "routeJobs", "cancelJob", "retryJob", "cancelJobs", "retryJobs"},
        ADMIN: {
            "createHost", "updateHost", "drainHost", "resumeHost", "deleteHost", "declareHostLost", "checkHealth",
            "createToken", "revokeToken", "drainHosts", "resumeHosts", "applyHosts",
        },
    },
    "subscription": {VIEWER: {"routingEvents", "routingEventBatches", "jobLogs", "jobStats"}},
}  # fmt: skip
SCHEMA = build_schema((ROOT / "graphql_api" / "schema.graphql").read_text())
RANKS = [VIEWER, OPERATOR, ADMIN]


def root(kind: str) -> GraphQLObjectType:
    found = SCHEMA.get_root_type(OperationType(kind))
    assert found is not None
    return found


def test_each_root_field_has_an_entry() -> None:
    for kind, by_role in NEEDED.items():
        named = [name for names in by_role.values() for name in names]
        assert sorted(named) == sorted(root(kind).fields), kind


def value(kind: Any) -> str:
    """The smallest literal of an argument's type."""
    if isinstance(kind, GraphQLNonNull):
        return value(kind.of_type)
    if isinstance(kind, GraphQLList):
        return "[]"
    if isinstance(kind, GraphQLEnumType):
        return next(iter(kind.values))
    if isinstance(kind, GraphQLInputObjectType):
        needed = {name: field for name, field in kind.fields.items() if isinstance(field.type, GraphQLNonNull)}
        return "{" + ", ".join(f"{name}: {value(field.type)}" for name, field in needed.items()) + "}"
    return {"Int": "1", "Float": "1", "Boolean": "true"}.get(kind.name, '"x"')


def document(kind: str, name: str, field: GraphQLField) -> str:
    arguments = {key: value(argument.type) for key, argument in field.args.items()
                 if isinstance(argument.type, GraphQLNonNull)}  # fmt: skip
    if kind == "subscription" and "after" in field.args and name != "jobLogs":
        arguments["after"] = '"0"'
    given = "(" + ", ".join(f"{key}: {text}" for key, text in arguments.items()) + ")" if arguments else ""
    selection = "" if is_leaf_type(get_named_type(field.type)) else " { __typename }"
    return f"{kind} {{ {name}{given}{selection} }}"


FIELDS = [(kind, name) for kind in NEEDED for name in sorted(root(kind).fields)]


async def over_http(api: Api, queries: list[str]) -> list[str]:
    return [(await api.http.post("/graphql", json={"query": query})).text for query in queries]


async def over_websocket(api: Api, queries: list[str]) -> list[str]:
    answers = {}
    async with api.socket() as connection:
        for number, query in enumerate(queries):
            message = {"id": str(number), "type": "subscribe", "payload": {"query": query}}
            await connection.send(json.dumps(message))
            while str(number) not in answers:
                text = await connection.recv()
                answers.setdefault(json.loads(text)["id"], text)
            await connection.send(json.dumps({"id": str(number), "type": "complete"}))
    return list(answers.values())


async def over_event_stream(api: Api, queries: list[str]) -> list[str]:
    answers = []
    for query in queries:
        headers = {"Accept": "text/event-stream"}
        async with api.http.stream("POST", "/graphql", json={"query": query}, headers=headers) as answer:
            answers.append(await anext(text async for text in answer.aiter_text() if "data:" in text))
    return answers


async def over_get(api: Api, queries: list[str]) -> list[str]:
    return [(await api.http.get("/graphql", params={"query": query})).text for query in queries]


TRANSPORTS = {"http": over_http, "get": over_get, "websocket": over_websocket, "event stream": over_event_stream}
NOT_OVER = {("subscription", "http"), ("subscription", "get"), ("mutation", "get")}


GROUPS = {VIEWER: "staff", OPERATOR: "dev", ADMIN: "ops"}
CREDENTIALS = ["token", "issuer"]


@pytest.fixture
async def callers() -> AsyncIterator[Callable[..., Awaitable[Api]]]:
    """Make a caller with a role, by a token of our own or of an issuer."""
    async with local_issuer() as issuer, AsyncExitStack() as stack:
        stack.enter_context(trusting(issuer))
        url = await stack.enter_async_context(serving(make_application()))

        async def make(role: Role, credential: str, **claims: object) -> Api:
            secret = await make_token(role) if credential == "token" else issuer.token(groups=[GROUPS[role]], **claims)
            api = Api(url, secret)
            stack.push_async_callback(api.http.aclose)
            return api

        yield make


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_each_field_is_for_its_roles_alone(
    callers: Callable[..., Awaitable[Api]], transport: str, credential: str
) -> None:
    by_role = {role: await callers(role, credential) for role in RANKS}
    await by_role[ADMIN](CREATE_HOST, input={"name": "h", "executorType": "SIMULATED"})
    fields = [(kind, name) for kind, name in FIELDS if (kind, transport) not in NOT_OVER]
    queries = [document(kind, name, root(kind).fields[name]) for kind, name in fields]
    for role, api in by_role.items():
        for (kind, name), answer in zip(fields, await TRANSPORTS[transport](api, queries), strict=True):
            (needed,) = [role for role, names in NEEDED[kind].items() if name in names]
            refused = RANKS.index(role) < RANKS.index(needed)
            assert ("FORBIDDEN" in answer) == refused, (kind, name, role, answer)
            assert "UNAUTHENTICATED" not in answer
            assert "INTERNAL" not in answer, (kind, name, answer)


async def test_nothing_is_changed_by_get(callers: Callable[..., Awaitable[Api]]) -> None:
    admin = await callers(ADMIN, "token")
    for kind, name in FIELDS:
        if kind != "query":
            query = document(kind, name, root(kind).fields[name])
            answer = await admin.http.get("/graphql", params={"query": query})
            assert "BAD_REQUEST" in answer.text, (name, answer.text)


async def _revoke() -> None:
    await ApiToken.objects.exclude(role=ADMIN).adelete()


async def _let_expire() -> None:
    await ApiToken.objects.exclude(role=ADMIN).aupdate(expires_at=timezone.now())


async def _wait() -> None:
    """A token of the issuer ends by itself."""


async def _read_to_the_end(connection: websockets.ClientConnection) -> None:
    async with asyncio.timeout(10):
        while True:
            assert "errors" not in (message := json.loads(await connection.recv())).get("payload", ()), message


@pytest.mark.parametrize(("credential", "end"), [("token", _revoke), ("token", _let_expire), ("issuer", _wait)])
@pytest.mark.parametrize("transport", ["websocket", "event stream"])
async def test_every_subscription_ends_with_its_token(
    callers: Callable[..., Awaitable[Api]], transport: str, credential: str, end: Callable[[], Awaitable[None]]
) -> None:
    admin = await callers(ADMIN, "token")
    await admin(
        CREATE_HOST, input={"name": "h", "executorType": "SIMULATED", "config": {"accept": "any", "run_ms": 60_000}}
    )
    job = await admin.submit()
    viewer = await callers(VIEWER, credential, exp=time.time() + 3)
    queries = [
        document("subscription", name, field).replace('id: "x"', f'id: "{job["id"]}"')
        for name, field in root("subscription").fields.items()
    ]
    async with AsyncExitStack() as stack:
        if transport == "websocket":
            connection = await stack.enter_async_context(viewer.socket())
            for number, query in enumerate(queries):
                await connection.send(json.dumps({"id": str(number), "type": "subscribe", "payload": {"query": query}}))
            await connection.recv()
            await end()
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await _read_to_the_end(connection)
            assert closed.value.rcvd.code == 4403
            return
        headers = {"Accept": "text/event-stream"}
        streams = [
            await stack.enter_async_context(
                viewer.http.stream("POST", "/graphql", json={"query": query}, headers=headers)
            )
            for query in queries
        ]
        assert [stream.status_code for stream in streams] == [200] * len(queries)
        await end()
        async with asyncio.timeout(10):
            for stream in streams:
                assert "UNAUTHENTICATED" in "".join([text async for text in stream.aiter_text()])


@pytest.mark.parametrize("secret", [None, "cm_" + "x" * 43])
async def test_nothing_answers_a_caller_without_a_token(
    url: str, secret: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("container_manager.service.tokens.MOST_REFUSED", 1000)
    stranger = Api(url, secret)
    for kind, name in FIELDS:
        query = document(kind, name, root(kind).fields[name])
        for headers in ({}, {"Accept": "text/event-stream"}, {"Accept": "application/graphql-response+json"}):
            answer = await stranger.http.post("/graphql", json={"query": query}, headers=headers)
            assert "UNAUTHENTICATED" in answer.text
            assert answer.status_code == (401 if headers else 200)
    with pytest.raises(websockets.ConnectionClosed) as closed:
        async with stranger.socket():
            pass
    assert closed.value.rcvd.code == 4403
    await stranger.http.aclose()
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{url}/metrics", headers=stranger.headers)).status_code == 401
