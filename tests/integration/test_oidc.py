"""Tokens of an OpenID Connect issuer, against a real issuer on this machine."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import jwt
import pytest
import websockets

from container_manager.domain.kinds import Role
from container_manager.environment import ConfigurationError, read
from container_manager.service import oidc
from graphql_api.application import make_application
from tests.api import connect
from tests.client import EVENTS
from tests.eventually import eventually
from tests.issuer import RSA, LocalIssuer, local_issuer, trusting
from tests.server import make_token, serving


@pytest.fixture
async def issuer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalIssuer]:
    monkeypatch.setattr(oidc, "READ_AGAIN_AFTER_SECONDS", 0.0)
    async with local_issuer() as found:
        yield found


Ask = Callable[..., object]


@asynccontextmanager
async def asking(issuer: LocalIssuer, **changes: object) -> AsyncIterator[tuple[str, Ask]]:
    with trusting(issuer, **changes):
        async with serving(make_application()) as url, httpx.AsyncClient(base_url=url) as http:

            async def ask(token: str, query: str = "{ eventCursor }") -> str:
                """ "" when it was answered, else the code of the error."""
                answer = await http.post(
                    "/graphql", json={"query": query}, headers={"Authorization": f"Bearer {token}"}
                )
                errors = answer.json().get("errors")
                return errors[0]["extensions"]["code"] if errors else ""

            yield url, ask


@pytest.mark.parametrize(
    ("groups", "query", "code"),
    [
        (["staff"], "{ eventCursor }", ""),
        (["staff"], "mutation { checkHealth { id } }", "FORBIDDEN"),
        (["staff", "dev"], "{ auditLog { pageInfo { hasNextPage } } }", "FORBIDDEN"),
        (["other", "ops", "staff"], "{ auditLog { pageInfo { hasNextPage } } }", ""),
        ("staff ops", "{ auditLog { pageInfo { hasNextPage } } }", ""),
        (["guests"], "{ eventCursor }", "UNAUTHENTICATED"),
        ([], "{ eventCursor }", "UNAUTHENTICATED"),
        (None, "{ eventCursor }", "UNAUTHENTICATED"),
        ({"ops": True}, "{ eventCursor }", "UNAUTHENTICATED"),
    ],
)
async def test_groups_give_roles(issuer: LocalIssuer, groups: object, query: str, code: str) -> None:
    async with asking(issuer) as (_, ask):
        assert await ask(issuer.token(groups=groups), query) == code


@pytest.mark.parametrize("kid", ["first", "pss", "ec"])
async def test_every_asymmetric_algorithm_is_accepted(issuer: LocalIssuer, kid: str) -> None:
    async with asking(issuer) as (_, ask):
        assert await ask(issuer.token(kid)) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://elsewhere.example"},
        {"aud": "another"},
        {"aud": None},
        {"exp": time.time() - 60},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": time.time() + 86_400},
        {"sub": None},
        {"sub": "x" * 200},
        {"sub": "a\nb"},
        {"key": RSA["unpublished"]},
        {"kid": "unknown", "key": RSA["first"]},
    ],
)
async def test_what_the_issuer_did_not_sign_for_us_is_refused(issuer: LocalIssuer, change: dict) -> None:
    async with asking(issuer) as (_, ask):
        assert await ask(issuer.token()) == ""
        assert await ask(issuer.token(**change)) == "UNAUTHENTICATED"


async def test_no_key_is_taken_for_another_kind(issuer: LocalIssuer) -> None:
    public = json.dumps(issuer.published()[0])
    unsigned = jwt.encode({"iss": issuer.url, "aud": "cm", "sub": "a", "groups": ["ops"]}, None, "none")
    async with asking(issuer) as (_, ask):
        head, claims, _ = issuer.token(groups=["ops"]).split(".")
        head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "first"}).encode()).decode().rstrip("=")
        mac = hmac.digest(public.encode(), f"{head}.{claims}".encode(), "sha256")
        by_secret = f"{head}.{claims}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
        for token in (unsigned, by_secret, issuer.token()[:-8] + "AAAAAAAA", "a.b.c", ".."):
            assert await ask(token) == "UNAUTHENTICATED"


async def test_new_keys_are_found_and_old_ones_end(issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(issuer) as (_, ask):
        old = issuer.token()
        assert [await ask(old) for _ in range(5)] == [""] * 5
        assert issuer.reads == 1
        issuer.keys = {"second": RSA["second"]}
        assert await ask(issuer.token("second")) == ""
        assert issuer.reads == 2
        assert await ask(old) == "UNAUTHENTICATED"


async def test_known_keys_stay_while_the_issuer_is_away(issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(issuer) as (_, ask):
        assert await ask(issuer.token()) == ""
        monkeypatch.setattr(oidc, "KEYS_LAST_SECONDS", -1.0)
        issuer.redirects = True
        assert await ask(issuer.token()) == ""


@pytest.mark.parametrize(
    "fault", [{"name": "https://other.example"}, {"redirects": True}, {"padding": "x" * 2_000_000}, {"keys": {}}]
)
async def test_an_issuer_that_lies_lets_nobody_in(issuer: LocalIssuer, fault: dict) -> None:
    token = issuer.token()
    for name, value in fault.items():
        setattr(issuer, name, value)
    async with asking(issuer) as (_, ask):
        assert await ask(token) == "UNAUTHENTICATED"


async def test_guessed_tokens_do_not_reach_the_issuer(issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "READ_AGAIN_AFTER_SECONDS", 60.0)
    async with asking(issuer) as (_, ask):
        unknown = [issuer.token(f"key-{number}", key=RSA["unpublished"]) for number in range(20)]
        assert set(await asyncio.gather(*map(ask, unknown))) == {"UNAUTHENTICATED"}
    assert issuer.reads == 1


async def test_a_token_that_has_ended_is_refused_at_once(issuer: LocalIssuer) -> None:
    async with asking(issuer) as (_, ask):
        assert await ask(issuer.token(exp=time.time() - 1)) == "UNAUTHENTICATED"
        # Clocks differ, so that one that has just begun is valid.
        assert await ask(issuer.token(nbf=time.time() + 10)) == ""


@pytest.mark.parametrize("kid", [["first"], 5, {"a": 1}])
async def test_a_key_is_named_by_a_text(issuer: LocalIssuer, kid: object) -> None:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "RS256", "kid": kid}).encode()).decode().rstrip("=")
    token = ".".join([head, *issuer.token().split(".")[1:]])
    async with asking(issuer) as (_, ask):
        assert await ask(token) == "UNAUTHENTICATED"
        assert await ask(issuer.token()) == ""


async def test_an_issuer_that_does_not_answer_holds_up_no_other_token(
    issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asking(issuer) as (_, ask):
        known, own = issuer.token(), await make_token(Role.VIEWER)
        assert await ask(known) == ""
        monkeypatch.setattr(oidc, "KEYS_LAST_SECONDS", 0.0)
        issuer.answers.clear()
        waiting = asyncio.create_task(ask(issuer.token("key-9", key=RSA["unpublished"])))
        await eventually(lambda: issuer.waiting > 0)
        # Neither those of our own nor those of known keys wait for it.
        assert await ask(own) == ""
        assert await ask(known) == ""
        assert not waiting.done()
        issuer.answers.set()
        assert await waiting == "UNAUTHENTICATED"


async def test_a_connection_ends_with_its_token(issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphql_api.sessions.CHECK_SECONDS", 0.01)
    async with asking(issuer) as (url, _):
        connection = await connect(url)
        bearer = {"Authorization": f"Bearer {issuer.token(exp=time.time() + 3)}"}
        await connection.send(json.dumps({"type": "connection_init", "payload": bearer}))
        await connection.recv()
        await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": EVENTS}}))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await _read_to_the_end(connection)
        assert closed.value.rcvd.code == 4403


async def _read_to_the_end(connection: websockets.ClientConnection) -> None:
    while True:
        await connection.recv()


async def test_the_audit_log_has_the_name_of_the_issuer_s_user(issuer: LocalIssuer) -> None:
    from container_manager.models import AuditEntry

    changes = {"oidc_roles_claim": "realm_access.roles", "oidc_name_claim": "email"}
    async with asking(issuer, **changes) as (_, ask):
        token = issuer.token(realm_access={"roles": ["ops"]}, email="ada@example.com")
        assert await ask(token, "mutation { checkHealth { id } }") == ""
    await eventually(AuditEntry.objects.aexists)
    assert (await AuditEntry.objects.afirst()).actor == "oidc:ada@example.com"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"OIDC_ISSUER": "http://issuer.example"}, "https://"),
        ({"OIDC_ISSUER": "https://issuer.example"}, "OIDC_AUDIENCE"),
        ({"OIDC_ISSUER": "https://issuer.example", "OIDC_AUDIENCE": "cm"}, "OIDC_ROLES"),
        ({"OIDC_ROLES": "owner=ops"}, "'owner=ops'"),
        ({"OIDC_ROLES": "admin"}, "'admin'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        read({f"CONTAINER_MANAGER_{name}": value for name, value in values.items()})
