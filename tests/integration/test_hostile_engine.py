"""An engine that lies: its host is UNHEALTHY with a clean sentence, and nothing else happens."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.api import UPDATE_HOST
from tests.client import CREATE_HOST, Api

INFO = {"NCPU": 2, "MemTotal": 2**33, "ServerVersion": "27.0", "ID": "a", "Name": "b", "DockerRootDir": "/c"}
ELSEWHERE = web.AppKey("elsewhere", list)
Lie = Callable[[web.Request], Awaitable[web.StreamResponse]]


def says(body: object, status: int = 200, **headers: str) -> Lie:
    async def answer(_: web.Request) -> web.StreamResponse:
        if isinstance(body, bytes):
            return web.Response(body=body, status=status, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    return answer


async def without_end(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    await answer.prepare(request)
    try:
        while True:
            await answer.write(b" " * 65_536)
    except ConnectionError:
        return answer


async def redirect(request: web.Request) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect(f"http://{request.host}/elsewhere")


@pytest.fixture
async def lying() -> AsyncIterator[Callable[..., Awaitable[TestServer]]]:
    """Start an engine of which some answers are given."""
    started = []

    async def start(**lies: Lie) -> TestServer:
        app = web.Application()
        app[ELSEWHERE] = []

        async def elsewhere(request: web.Request) -> web.Response:
            app[ELSEWHERE].append(request.path)
            return web.json_response(INFO | {"ServerVersion": "a secret"})

        truth = {
            "ping": says(b"OK", **{"Api-Version": "1.41"}),
            "info": says(INFO),
            "containers": says([]),
        }
        handlers = {**truth, **lies}
        app.router.add_get("/_ping", handlers["ping"])
        app.router.add_get("/v1.41/info", handlers["info"])
        app.router.add_get("/v1.41/containers/json", handlers["containers"])
        app.router.add_get("/{path:.*}", elsewhere)
        server = TestServer(app)
        await server.start_server()
        started.append(server)
        return server

    yield start
    for server in started:
        await server.close()


async def health_of(admin: Api, server: TestServer) -> dict:
    config = {"url": f"tcp://127.0.0.1:{server.port}"}
    host = await admin(CREATE_HOST, input={"name": f"h{server.port}", "executorType": "DOCKER", "config": config})
    return host["health"]


LIES: dict[str, dict[str, Lie]] = {
    "a list for an object": {"info": says([])},
    "an object for a list": {"containers": says({"a": 1})},
    "strings for objects": {"containers": says(["x"])},
    "no fields": {"info": says({})},
    "null": {"info": says(None)},
    "more cores than there are": {"info": says(INFO | {"NCPU": 10**30})},
    "negative memory": {"info": says(INFO | {"MemTotal": -1})},
    "text for a number": {"info": says(INFO | {"NCPU": "\x1b[31mred"})},
    "a million values": {"info": says(b"[" + b"[]," * 200_000 + b"[]]", **{"Content-Type": "application/json"})},
    "nested without end": {"info": says(b"[" * 100_000, **{"Content-Type": "application/json"})},
    "no json": {"info": says(b"<html>\x1b]0;title\x07", **{"Content-Type": "application/json"})},
    "no end": {"info": without_end},
    "a redirect": {"info": redirect},
    "a redirect of the ping": {"ping": redirect},
    "a long error": {"info": says({"message": "<" * 5_000_000}, 500)},
    "an error with escapes": {"info": says({"message": "\x1b[2J\x1b]0;evil\x07\u202e" + "x" * 3000}, 500)},
    "an error of another shape": {"info": says(["x"], 500)},
    "a path for a version": {"ping": says(b"OK", **{"Api-Version": "1.41/../../elsewhere?"})},
    "a long version": {"ping": says(b"OK", **{"Api-Version": "1" * 5000})},
}


@pytest.mark.parametrize("lie", LIES)
async def test_an_engine_that_lies_is_unhealthy_with_a_clean_sentence(
    admin: Api, lying: Callable[..., Awaitable[TestServer]], lie: str
) -> None:
    server = await lying(**LIES[lie])
    health = await health_of(admin, server)
    assert health["status"] == "UNHEALTHY"
    error = health["error"]
    assert error.isprintable()
    assert 20 < len(error) <= 500
    for word in ("Traceback", "'list'", "NoneType", "indices", "validation error", "EngineInfo", "pydantic"):
        assert word not in error
    assert server.app[ELSEWHERE] == []


async def test_what_an_engine_calls_itself_is_cleaned(admin: Api, lying: Callable[..., Awaitable[TestServer]]) -> None:
    server = await lying(info=says(INFO | {"ServerVersion": "27\x1b[31m" + "9" * 5000}))
    assert (await health_of(admin, server))["status"] == "HEALTHY"
    (edge,) = (await admin("{ hosts { edges { node { engine } } } }"))["edges"]
    assert edge["node"]["engine"].isprintable()
    assert len(edge["node"]["engine"]) <= 100


# ------------------------------------------------------------------ certificates and secrets

KEY = "Bag Attributes\n    friendlyName: mine\n-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("key", [KEY, "c2VjcmV0" * 10, KEY.replace("-----BEGIN", "----BEGIN"), "\n c2VjcmV0\0"])
async def test_no_message_repeats_a_key(admin: Api, key: str, caplog: pytest.LogCaptureFixture) -> None:
    config = {"url": "https://127.0.0.1:1", "tls": {"cert": "-----BEGIN CERTIFICATE-----\n", "key": key}}
    host = await admin(CREATE_HOST, input={"name": "h", "executorType": "DOCKER", "config": config})
    assert "c2VjcmV0" not in str(host)
    assert "c2VjcmV0" not in caplog.text


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder", "missing", "large"])
async def test_certificates_are_read_from_small_files_only(admin: Api, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ca.pem"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        path.write_bytes(bytes(2 * 2**20))
    config = {"url": "https://127.0.0.1:1", "tls": {"ca": str(path)}}
    async with asyncio.timeout(10):
        host = await admin(CREATE_HOST, input={"name": "h", "executorType": "DOCKER", "config": config})
    assert host["health"]["status"] == "UNHEALTHY"
    assert host["health"]["error"].startswith("config.tls.ca: ")


async def test_secrets_do_not_follow_a_host_to_another_address(
    admin: Api, lying: Callable[..., Awaitable[TestServer]]
) -> None:
    one, two = await lying(), await lying()
    login = {"registry.example.org": {"username": "me", "password": "secret"}}
    config = {"url": f"tcp://127.0.0.1:{one.port}", "registry_auth": login}
    host = await admin(CREATE_HOST, input={"name": "h", "executorType": "DOCKER", "config": config})
    shown = host["config"]
    assert shown["registry_auth"]["registry.example.org"]["password"] == "********"
    same = await admin(UPDATE_HOST, id=host["id"], input={"config": shown | {"max_launches": 7}})
    assert same["__typename"] == "ExecutorHost"
    moved = await admin(UPDATE_HOST, id=host["id"], input={"config": shown | {"url": f"tcp://127.0.0.1:{two.port}"}})
    assert moved["__typename"] == "ValidationFailed"
    assert "secrets must be given again" in moved["message"]
    elsewhere = await admin(UPDATE_HOST, id=host["id"], input={"config": shown | {"node": "another"}})
    assert elsewhere["__typename"] == "ValidationFailed"
    assert "secrets must be given again" in elsewhere["message"]
