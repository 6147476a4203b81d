"""Who may call the API: tokens, roles, allowed hosts and origins, the audit log."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from unittest.mock import patch

import httpx
import pytest
import websockets
from django.utils import timezone

from container_manager.aio import cancel_and_wait
from container_manager.domain.kinds import Role
from container_manager.models import ApiToken, AuditEntry
from container_manager.process import Process
from container_manager.service.tokens import Tokens
from container_manager.store import tokens
from container_manager.store.writer import Writer
from graphql_api.ids import to_global, to_pk
from tests.api import CANCEL, SIMULATED, connect, host_mutation
from tests.client import CREATE_HOST, EVENTS, SUBMIT, Api
from tests.configured import configure
from tests.eventually import eventually
from tests.server import make_token


async def test_a_stream_without_a_token_is_refused(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as stranger:
        answer = await stranger.post("/graphql", json={}, headers={"Accept": "text/event-stream"})
    assert answer.status_code == 401
    assert answer.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_revoked_token_ends_what_was_opened_with_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphql_api.sessions.CHECK_SECONDS", 0.001)
    api = Api(url, await make_token(Role.ADMIN))
    async with api.socket() as connection:
        subscribe = {"id": "1", "type": "subscribe", "payload": {"query": EVENTS}}
        await connection.send(json.dumps(subscribe))
        await eventually(lambda: _host_is_made(api))
        await connection.recv()
        await ApiToken.objects.all().adelete()
        await connection.send(json.dumps({**subscribe, "id": "2"}))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await _read_to_the_end(connection)
        assert closed.value.rcvd.code == 4403
    await api.http.aclose()


async def _read_to_the_end(connection: websockets.ClientConnection) -> None:
    while True:
        await connection.recv()


async def _host_is_made(api: Api) -> bool:
    return (await api(CREATE_HOST, input=SIMULATED))["__typename"] == "ExecutorHost"


async def test_pages_of_allowed_origins_may_call(admin: Api) -> None:
    from graphql_api.application import make_application

    origin = "http://localhost:5173"
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    assert "access-control-allow-origin" not in (await admin.http.options("/graphql", headers=asked)).headers
    with pytest.MonkeyPatch.context() as patched:
        configure(patched, allowed_origins=(origin,))
        application = make_application()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost") as client:
        answer = await client.options("/graphql", headers=asked)
    assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("secret", [None, "cm_wrong", "ünï"])
async def test_without_a_token_nothing_answers(url: str, secret: str | None) -> None:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}".encode()}
    async with httpx.AsyncClient(base_url=url) as client:
        for query in ("{ eventCursor }", "{ __schema { types { name } } }", "mutation { checkHealth { id } }"):
            answer = await client.post("/graphql", json={"query": query}, headers=headers)
            (error,) = answer.json()["errors"]
            assert error["extensions"]["code"] == "UNAUTHENTICATED"
            assert answer.json()["data"] is None


async def test_roles(url: str, admin: Api, sim: dict) -> None:
    viewer, operator = [Api(url, await make_token(role)) for role in (Role.VIEWER, Role.OPERATOR)]
    job = await operator.submit()
    assert (await viewer.job(job["id"]))["id"] == job["id"]
    for api, query, variables in (
        (viewer, SUBMIT, {"input": {"image": "x"}}),
        (viewer, CANCEL, {"id": job["id"]}),
        (viewer, host_mutation("drainHost"), {"id": sim["id"]}),
        (operator, host_mutation("drainHost"), {"id": sim["id"]}),
        (operator, CREATE_HOST, {"input": SIMULATED}),
        (operator, "mutation { checkHealth { id } }", {}),
    ):
        error = await api.error(query, **variables)
        assert error["extensions"]["code"] == "FORBIDDEN"
        assert "role" in error["message"]
    for api in (viewer, operator):
        await api.http.aclose()


async def test_tokens_expire_and_can_be_revoked(url: str) -> None:
    api = Api(url, await make_token(Role.VIEWER))
    await api("{ eventCursor }")
    token = await ApiToken.objects.aget()
    await eventually(ApiToken.objects.exclude(last_used_at=None).aexists)
    await ApiToken.objects.aupdate(expires_at=timezone.now() - timedelta(seconds=1))

    async def is_refused() -> bool:
        return "UNAUTHENTICATED" in json.dumps(await api.post("{ eventCursor }"))

    await eventually(is_refused, 3)
    await api.http.aclose()
    assert api.headers["Authorization"].removeprefix("Bearer ") not in token.digest
    assert tokens.digest(api.headers["Authorization"].removeprefix("Bearer ")) == token.digest


async def test_changes_are_audited(admin: Api, sim: dict) -> None:
    job = await admin.submit()
    await admin(host_mutation("drainHost"), id=sim["id"])
    entries = [entry async for entry in AuditEntry.objects.order_by("pk")]
    assert [entry.action for entry in entries] == ["createHost", "submitJob", "drainHost"]
    assert {entry.actor for entry in entries} == {(await ApiToken.objects.aget()).name}
    assert {entry.address for entry in entries} == {"127.0.0.1"}
    assert [entry.target for entry in entries] == ["sim", str(to_pk("ContainerJob", job["id"])), "sim"]
    assert [entry.detail for entry in entries] == ["", "busybox:test", "isDraining: false to true"]
    assert {entry.result for entry in entries} == {"DONE"}


async def test_what_failed_is_not_audited_as_done(admin: Api, sim: dict) -> None:
    await admin(CREATE_HOST, input=SIMULATED)
    await admin(CANCEL, id=to_global("ContainerJob", 999))
    kinds = [(entry.action, entry.result) async for entry in AuditEntry.objects.order_by("pk")]
    assert kinds[1:] == [("createHost", "CONFLICT"), ("cancelJob", "NOT_FOUND")]
    last = await AuditEntry.objects.order_by("pk").alast()
    assert (last.target, last.detail) == ("999", "There is no such job.")


async def test_a_changed_config_is_named_and_not_shown(admin: Api, sim: dict) -> None:
    update = "mutation($id: ID!, $input: HostPatch!) { updateHost(id: $id, input: $input) { __typename } }"
    await admin(update, id=sim["id"], input={"routingWeight": 7, "config": {"accept": "any", "run_ms": 60}})
    entry = await AuditEntry.objects.order_by("pk").alast()
    assert entry.detail == "routingWeight: 100 to 7; config: run_ms changed"


async def test_what_a_role_may_not_do_is_audited(url: str, admin: Api, sim: dict, monkeypatch) -> None:
    monkeypatch.setattr("container_manager.service.tokens.REFUSED_RECORDED_SECONDS", 0.2)
    api = Api(url, await make_token(Role.VIEWER))
    for _ in range(3):
        await api.error(host_mutation("drainHost"), id=sim["id"])
    await api.http.aclose()
    await eventually(AuditEntry.objects.filter(result="FORBIDDEN").aexists)
    entry = await AuditEntry.objects.aget(result="FORBIDDEN")
    assert (entry.action, entry.detail) == ("drainHost", "3 times")
    assert entry.actor.startswith("viewer")


@pytest.mark.parametrize("payload", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": 5}, None])
async def test_a_socket_without_a_token_is_closed(url: str, payload: dict | None) -> None:
    connection = await connect(url)
    message = {"type": "connection_init"} | ({} if payload is None else {"payload": payload})
    await connection.send(json.dumps(message))
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await connection.recv()
    assert closed.value.rcvd.code == 4403


async def test_other_paths_take_no_sockets(admin: Api) -> None:
    with pytest.raises(websockets.InvalidStatus, match="403"):
        await websockets.connect(admin.url.replace("http", "ws") + "/elsewhere")


async def test_probes_need_no_token(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/livez")).text == "ok\n"
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "failing": []})
        with patch("container_manager.store.hosts.any_exist", side_effect=OSError("gone")):
            ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["failing"]) == (503, ["The database does not answer."])
        assert (await client.get("/nowhere")).status_code == 404


async def test_only_allowed_hosts_are_answered(admin: Api) -> None:
    body = {"query": "{ eventCursor }"}
    refused = await admin.http.post("/graphql", json=body, headers={"Host": "rebound.example"})
    assert (refused.status_code, "CONTAINER_MANAGER_ALLOWED_HOSTS" in refused.text) == (400, True)
    for name in ("localhost:99", "[::1]:8000", "127.0.0.1"):
        assert (await admin.http.post("/graphql", json=body, headers={"Host": name})).status_code == 200
    assert (await admin.http.get("/livez", headers={"Host": "10.0.0.7"})).status_code == 200
    address = admin.url.replace("http", "ws") + "/graphql"
    with pytest.raises(websockets.InvalidStatus, match="403"):
        await websockets.connect(
            address.replace("127.0.0.1", "rebound.example"), host="127.0.0.1", port=httpx.URL(admin.url).port
        )
    with pytest.raises(websockets.InvalidStatus, match="403"):
        await websockets.connect(address, origin="https://elsewhere.example")


# ------------------------------------------------------------------ what is open


@pytest.fixture
async def short(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """A viewer whose token is looked up again at once."""
    monkeypatch.setattr("graphql_api.sessions.CHECK_SECONDS", 0.01)
    api = Api(url, await make_token(Role.VIEWER))
    yield api
    await api.http.aclose()


async def _revoke() -> None:
    await ApiToken.objects.all().adelete()


async def _expire() -> None:
    await ApiToken.objects.all().aupdate(expires_at=timezone.now())


@pytest.mark.parametrize("invalidate", [_revoke, _expire])
async def test_idle_connections_end_with_their_token(short: Api, invalidate: Callable) -> None:
    subscribe = {"id": "1", "type": "subscribe", "payload": {"query": EVENTS}}
    stream = short.http.stream("POST", "/graphql", json={"query": EVENTS}, headers={"Accept": "text/event-stream"})
    async with short.socket() as idle, short.socket() as subscribed, stream as answer:
        await subscribed.send(json.dumps(subscribe))
        await invalidate()
        for connection in (idle, subscribed):
            with pytest.raises(websockets.ConnectionClosed) as closed:
                async with asyncio.timeout(10):
                    await _read_to_the_end(connection)
            assert closed.value.rcvd.code == 4403
        async with asyncio.timeout(10):
            rest = "".join([piece async for piece in answer.aiter_text()])
        assert "UNAUTHENTICATED" in rest
        assert "event: complete" in rest


async def test_a_token_has_only_so_many_subscriptions(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, max_subscriptions=2)
    api, other = Api(url, await make_token(Role.VIEWER)), Api(url, await make_token(Role.VIEWER))
    subscribe = {"id": "1", "type": "subscribe", "payload": {"query": EVENTS}}
    async with api.socket() as first, api.socket() as second, api.socket() as third, other.socket() as fourth:
        for connection in (first, second, fourth):
            await connection.send(json.dumps(subscribe))
        await eventually(lambda: _host_is_made_by(url))
        for connection in (first, second, fourth):
            assert json.loads(await connection.recv())["type"] == "next"
        await third.send(json.dumps(subscribe))
        refused = json.loads(await third.recv())
        assert "LIMIT_EXCEEDED" in json.dumps(refused)
        streams = {"Accept": "text/event-stream"}
        async with api.http.stream("POST", "/graphql", json={"query": EVENTS}, headers=streams) as stream:
            lines = stream.aiter_lines()
            while "LIMIT_EXCEEDED" not in await anext(lines):
                pass
        await first.close()
        await eventually(lambda: _may_subscribe(third, subscribe))
    for one in (api, other):
        await one.http.aclose()


async def _host_is_made_by(url: str) -> bool:
    api = Api(url, await make_token(Role.ADMIN))
    made = await _host_is_made(api)
    await api.http.aclose()
    return made


async def _may_subscribe(connection: websockets.ClientConnection, subscribe: dict) -> bool:
    await connection.send(json.dumps({**subscribe, "id": "again", "payload": {"query": FROM_THE_START}}))
    while (message := json.loads(await connection.recv()))["id"] != "again":
        pass
    if message["type"] == "next" and "errors" not in message["payload"]:
        return True
    while json.loads(await connection.recv())["type"] != "complete":
        pass
    return False


FROM_THE_START = 'subscription { routingEvents(after: "0") { cursor } }'


async def test_a_long_reason_for_a_close_is_cut(short: Api, caplog: pytest.LogCaptureFixture) -> None:
    subscribe = {"id": "ä" * 5000, "type": "subscribe", "payload": {"query": EVENTS}}
    async with short.socket() as connection:
        await connection.send(json.dumps(subscribe))
        await connection.send(json.dumps(subscribe))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await _read_to_the_end(connection)
    assert closed.value.rcvd.code == 4409
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("transport", ["http", "socket"])
async def test_authentication_does_not_wait_for_the_writer(
    url: str, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    api = Api(url, await make_token(Role.VIEWER))
    monkeypatch.setattr(Writer, "write_for_client", lambda *_: asyncio.Event().wait())
    async with asyncio.timeout(10):
        if transport == "http":
            assert (await api("{ eventCursor }")).isdigit()
        else:
            async with api.socket() as connection:
                await connection.ping()
    await api.http.aclose()


# ------------------------------------------------------------------ the audit log

AUDIT = "query($first: Int, $after: String) { auditLog(first: $first, after: $after) { edges { cursor node { at actor address action target result detail } } pageInfo { hasNextPage } } }"


async def test_admins_read_the_audit_log(admin: Api, url: str, sim: dict) -> None:
    await admin(host_mutation("drainHost"), id=sim["id"])
    page = await admin(AUDIT, first=1)
    (edge,) = page["edges"]
    assert (edge["node"]["action"], edge["node"]["target"]) == ("drainHost", "sim")
    assert edge["node"]["address"] == "127.0.0.1"
    assert page["pageInfo"]["hasNextPage"]
    rest = (await admin(AUDIT, after=edge["cursor"]))["edges"]
    assert [entry["node"]["action"] for entry in rest] == ["createHost"]
    for role in (Role.VIEWER, Role.OPERATOR):
        api = Api(url, await make_token(role))
        assert (await api.error(AUDIT))["extensions"]["code"] == "FORBIDDEN"
        await api.http.aclose()


async def test_refused_tokens_are_recorded_together(admin: Api, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("container_manager.service.tokens.REFUSED_RECORDED_SECONDS", 0.2)
    async with httpx.AsyncClient(base_url=url) as guesser:
        for number in range(20):
            headers = {"Authorization": f"Bearer guess-{number}"}
            await guesser.post("/graphql", json={"query": "{ eventCursor }"}, headers=headers)

    async def recorded() -> int:
        entries = [entry["node"] for entry in (await admin(AUDIT))["edges"]]
        refused = [entry for entry in entries if entry["action"] == "token refused"]
        assert all((entry["actor"], entry["address"]) == ("(refused)", "127.0.0.1") for entry in refused)
        assert len(refused) < 10
        counts = [entry["detail"].split()[0] for entry in refused]
        return sum(1 if count == "once" else int(count) for count in counts) == 20

    await eventually(recorded)


async def test_an_address_that_guesses_is_not_looked_up_any_more(
    admin: Api, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("container_manager.service.tokens.MOST_REFUSED", 5)
    await admin("{ eventCursor }")
    fresh = await make_token(Role.VIEWER)
    async with httpx.AsyncClient(base_url=url) as guesser:

        async def ask(secret: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {secret}"}
            return await guesser.post("/graphql", json={"query": "{ eventCursor }"}, headers=headers)

        for number in range(5):
            assert (await ask(f"guess-{number}")).json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        for secret in ("guess-6", fresh):
            answer = await ask(secret)
            assert answer.status_code == 429
            assert answer.headers["Retry-After"] == "60"
            assert answer.json()["errors"][0]["extensions"]["code"] == "LIMIT_EXCEEDED"
        connection = await connect(url)
        await connection.send(json.dumps({"type": "connection_init", "payload": {"Authorization": f"Bearer {fresh}"}}))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd.code == 4403
    # A token that was used before goes on, also from the same address.
    await admin("{ eventCursor }")


async def test_a_token_is_not_looked_up_again_for_a_moment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("container_manager.service.tokens.KNOWN_SECONDS", 3600.0)
    looked_up = []
    find = tokens.find
    monkeypatch.setattr(tokens, "find", lambda *given: looked_up.append(given) or find(*given))
    secret = await make_token(Role.VIEWER)
    api = Api(url, secret)
    for _ in range(3):
        await api("{ eventCursor }")
    assert len(looked_up) == 1
    # Not beyond its end.
    await ApiToken.objects.aupdate(expires_at=timezone.now() + timedelta(seconds=0.2))
    service = Tokens(Process("x"))
    assert await service.authenticate([secret])
    await eventually(lambda: service.known(secret) is None, 3)
    assert await service.authenticate([secret]) == [None]
    await cancel_and_wait(*service._tasks)
    await api.http.aclose()


async def test_guesses_are_counted_by_network_and_those_of_many_together(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(Process("x"))
    monkeypatch.setattr("container_manager.service.tokens.MOST_ADDRESSES", 3)
    monkeypatch.setattr("container_manager.service.tokens.MOST_OF_OTHERS", 150)
    monkeypatch.setattr("container_manager.service.tokens.REFUSED_RECORDED_SECONDS", 3600.0)
    for at in range(100):
        tokens.note_refused(f"2001:db8::{at:x}")
    assert tokens.is_refused_unread("2001:db8::ffff", "x")
    assert not tokens.is_refused_unread("2001:db9::1", "x")
    for at in range(152):
        tokens.note_refused(f"10.0.0.{at}")
    assert tokens.is_refused_unread("10.1.1.1", "x")
    assert not tokens.is_refused_unread("10.0.0.0", "x")
    assert sum(tokens._refused.values()) == 252
    await cancel_and_wait(tokens._recording_refused)
