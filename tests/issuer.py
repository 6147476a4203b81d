"""An OpenID Connect issuer on this machine."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.configured import configure

RSA = {name: rsa.generate_private_key(65537, 2048) for name in ("first", "second", "unpublished")}
EC = ec.generate_private_key(ec.SECP256R1())


class LocalIssuer:
    """An issuer whose keys, answers and faults a test sets."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = url
        self.keys = {"first": RSA["first"], "pss": RSA["second"], "ec": EC}
        self.reads = self.waiting = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.padding = ""
        self.redirects = False

    def published(self) -> list[dict]:
        return [
            {
                **jwt.get_algorithm_by_name(self.algorithm(name)).to_jwk(key.public_key(), as_dict=True),
                "alg": self.algorithm(name),
                "kid": name,
                "use": "sig",
            }
            for name, key in self.keys.items()
        ]

    def algorithm(self, kid: str) -> str:
        return {"ec": "ES256", "pss": "PS512"}.get(kid, "RS256")

    async def about(self, _: web.Request) -> web.Response:
        if self.redirects:
            raise web.HTTPFound(f"{self.url}/elsewhere")
        return web.json_response({"issuer": self.name, "jwks_uri": f"{self.url}/keys", "padding": self.padding})

    async def read_keys(self, _: web.Request) -> web.Response:
        self.reads += 1
        self.waiting += 1
        await self.answers.wait()
        self.waiting -= 1
        return web.json_response({"keys": self.published()})

    def token(self, kid: str = "first", key: object = None, algorithm: str = "", **claims: object) -> str:
        usual = {"iss": self.url, "aud": "cm", "sub": "ada", "groups": ["staff"], "exp": time.time() + 600}
        kept = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return jwt.encode(kept, key or self.keys[kid], algorithm or self.algorithm(kid), headers={"kid": kid})


@asynccontextmanager
async def local_issuer() -> AsyncIterator[LocalIssuer]:
    """An issuer that answers."""
    application = web.Application()
    runner = web.AppRunner(application)
    found = LocalIssuer("")
    application.router.add_get("/.well-known/openid-configuration", found.about)
    application.router.add_get("/keys", found.read_keys)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = found.name = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        await runner.cleanup()


@contextmanager
def trusting(issuer: LocalIssuer, **changes: object) -> Iterator[None]:
    """Let applications that are made in the block accept its tokens."""
    values = {
        "oidc_issuer": issuer.url,
        "oidc_audience": "cm",
        "oidc_roles": ("admin=ops", "operator=dev", "viewer=staff"),
        **changes,
    }
    with pytest.MonkeyPatch.context() as patch:
        configure(patch, **values)
        yield
