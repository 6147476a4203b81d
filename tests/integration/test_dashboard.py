"""What the server does for the dashboard: pages, files, and sessions of browsers."""

import asyncio
import json
import re

import httpx
import pytest
import websockets

from container_manager.domain.kinds import Role
from graphql_api import browser_session
from graphql_api.dashboard import FOLDER, PAGES
from tests.client import Api
from tests.eventually import eventually
from tests.server import make_token

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
VIEWER = {"query": "{ viewer { name role } }"}


@pytest.fixture
async def browser(url: str):
    async with httpx.AsyncClient(base_url=url) as client:
        yield client


async def sign_in(browser: httpx.AsyncClient, role: Role = Role.OPERATOR) -> str:
    secret = await make_token(role)
    answer = await browser.post("/session", headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert secret not in cookie
    return secret


async def test_every_page_is_the_shell_with_a_strict_policy(browser: httpx.AsyncClient) -> None:
    for path in PAGES:
        answer = await browser.get(path.format(name="a%20b", id="x"))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8"), path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", answer.text)


async def test_a_path_that_there_is_not_gets_a_page_for_people_alone(browser: httpx.AsyncClient) -> None:
    for_people = await browser.get("/nothing/here", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (for_people.status_code, "/assets/app.js" in for_people.text) == (404, True)
    for_programs = await browser.get("/nothing/here")
    assert (for_programs.status_code, for_programs.text) == (404, "Not Found")


async def test_a_browser_that_opens_the_api_gets_an_editor_and_all_others_an_answer(browser: httpx.AsyncClient) -> None:
    for_people = await browser.get("/graphql", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (for_people.status_code, "/assets/ide.js" in for_people.text) == (200, True)
    policy = for_people.headers["content-security-policy"]
    assert "script-src 'self'; style-src 'self' 'unsafe-inline'; font-src data:;" in policy
    query = {"query": "{ __typename }"}
    assert (await browser.get("/graphql", params=query, headers={"Accept": "text/html"})).json()["errors"]
    assert (await browser.get("/graphql")).json()["errors"]
    assert (await browser.post("/graphql", json=query, headers={"Accept": "text/html"})).json()["errors"]


async def test_only_the_dashboards_own_files_are_served(browser: httpx.AsyncClient) -> None:
    served = await browser.get("/assets/app.js")
    assert (served.status_code, served.headers["cache-control"]) == (200, "no-cache")
    assert served.headers["content-type"].startswith("text/javascript")
    again = await browser.get("/assets/app.js", headers={"If-None-Match": served.headers["etag"]})
    assert again.status_code == 304
    for path in (
        "package.json",
        "__init__.py",
        "vendor.mjs",
        "index.html",
        "%2e%2e/pyproject.toml",
        "node_modules/x.js",
    ):
        assert (await browser.get(f"/assets/{path}")).status_code == 404, path


def test_the_scripts_are_small_and_load_nothing_from_elsewhere() -> None:
    import gzip

    editor = {"ide.js", "graphiql.js"}
    scripts = [path for path in FOLDER.rglob("*.js") if "node_modules" not in path.parts and path.name not in editor]
    assert sum(len(gzip.compress(path.read_bytes())) for path in scripts) < 120_000
    for path in scripts:
        if path.parent.name != "vendor":
            imports = re.findall(r'from "([^"]+)"', path.read_text())
            assert all(name.startswith(".") for name in imports), path
    assert not re.search(r"https?://", (FOLDER / "app.css").read_text() + (FOLDER / "index.html").read_text())


async def test_a_session_stands_for_its_token_in_requests_of_the_own_pages(
    browser: httpx.AsyncClient, url: str
) -> None:
    await sign_in(browser)
    answer = await browser.post("/graphql", json=VIEWER, headers=SAME_ORIGIN)
    assert answer.json()["data"]["viewer"]["role"] == "OPERATOR"
    # Over plain HTTP, browsers tell the origin only.
    answer = await browser.post("/graphql", json=VIEWER, headers={"Origin": url})
    assert answer.json()["data"]["viewer"]["role"] == "OPERATOR"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
async def test_no_other_site_can_use_a_session(browser: httpx.AsyncClient, url: str, headers: dict[str, str]) -> None:
    await sign_in(browser)
    answer = await browser.post("/graphql", json=VIEWER, headers=headers)
    assert answer.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    with pytest.raises((websockets.ConnectionClosed, websockets.InvalidStatus)):
        await first_message(url, {"Cookie": cookie, **headers})


async def first_message(url: str, headers: dict[str, str]) -> str:
    """The type of the first message on a WebSocket whose client gives no token."""
    async with websockets.connect(
        url.replace("http", "ws") + "/graphql", subprotocols=["graphql-transport-ws"], additional_headers=headers
    ) as socket:
        await socket.send(json.dumps({"type": "connection_init"}))
        return json.loads(await socket.recv())["type"]


async def test_a_socket_of_an_own_page_needs_no_other_credentials(browser: httpx.AsyncClient, url: str) -> None:
    await sign_in(browser)
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    assert await first_message(url, {"Cookie": cookie, "Origin": url}) == "connection_ack"


async def test_a_session_ends_with_its_token_and_by_signing_out(browser: httpx.AsyncClient, admin: Api) -> None:
    async def code() -> str | None:
        answer = (await browser.post("/graphql", json=VIEWER, headers=SAME_ORIGIN)).json()
        return answer["errors"][0]["extensions"]["code"] if "errors" in answer else None

    await sign_in(browser, Role.VIEWER)
    tokens = await admin("{ tokens { id role } }")
    revoke = "mutation($id: ID!) { revokeToken(id: $id) { __typename } }"
    await admin(revoke, id=next(token["id"] for token in tokens if token["role"] == "VIEWER"))

    async def is_over() -> bool:
        return await code() == "UNAUTHENTICATED"

    await eventually(is_over, 5)
    await sign_in(browser)
    assert await code() is None
    assert (await browser.delete("/session")).status_code == 204
    assert browser_session.COOKIE not in browser.cookies
    assert await code() == "UNAUTHENTICATED"


async def test_an_old_or_foreign_cookie_is_no_session(browser: httpx.AsyncClient, monkeypatch) -> None:
    monkeypatch.setattr(browser_session, "LASTS_SECONDS", -1)
    secret = await make_token(Role.VIEWER)
    answer = await browser.post("/session", headers={"Authorization": f"Bearer {secret}"})
    old = re.search(rf"{browser_session.COOKIE}=([^;]+)", answer.headers["set-cookie"])[1]
    for value in (old, "x", "eA==", "x" * 5000):
        headers = {**SAME_ORIGIN, "Cookie": f"{browser_session.COOKIE}={value}"}
        answer = await browser.post("/graphql", json=VIEWER, headers=headers)
        assert answer.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        (None, "A valid token is needed"),
        ("Bearer cm_unknown", "The token is unknown: it may have been revoked"),
        ("cm_unknown", "must be the word Bearer"),
        ("Basic eDp5", "must be the word Bearer"),
    ],
)
async def test_a_refused_login_says_what_is_wrong(
    browser: httpx.AsyncClient, authorization: str | None, message: str
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = await browser.post("/session", headers=headers)
    assert (answer.status_code, message in answer.json()["message"]) == (401, True)
    answer = await browser.post("/graphql", json=VIEWER, headers=headers)
    assert message in answer.json()["errors"][0]["message"]


async def test_signing_in_takes_turns_with_others(browser: httpx.AsyncClient) -> None:
    await asyncio.gather(*(sign_in(browser) for _ in range(5)))
