"""OpenID Connect: tokens that a configured issuer has signed, verified by the keys that it publishes.

See https://openid.net/specs/openid-connect-discovery-1_0.html. Nothing is asked of the issuer but its keys.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import NoneType
from typing import Any, NamedTuple

import aiohttp
import jwt
import orjson

from container_manager.aio import start_detached
from container_manager.domain.kinds import Role
from container_manager.environment import Environment
from container_manager.store.tokens import Credential

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Those with a public key only: with a shared one, the public key could be used to sign."""

LEEWAY_SECONDS = 30
KEYS_LAST_SECONDS = 300.0
READ_AGAIN_AFTER_SECONDS = 10.0
"""How soon the keys may be read again, for a token that names an unknown one or after a failure."""

LARGEST_ANSWER = 1_048_576
MOST_VERIFIED = 10_000
NOT_A_KEY_SET = (ValueError, TypeError, LookupError, AttributeError, jwt.PyJWTError)
"""The errors that an answer of another shape causes."""

LONGEST_TOKEN, LONGEST_NAME = 16_384, 95
NAME_PREFIX = "oidc:"

LATEST = datetime.max.replace(tzinfo=UTC).timestamp() - 1
"""A time that can be shown; tokens may name later ones."""

logger = logging.getLogger(__name__)


class _Verified(NamedTuple):
    """A token that was verified with this key, and its end in seconds since 1970."""

    credential: Credential
    key: jwt.PyJWK
    ends_at: float


class Issuer:
    """The issuer of CONTAINER_MANAGER_OIDC_ISSUER."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        given = (entry.partition("=") for entry in environment.oidc_roles)
        self._roles = {value: Role(role) for role, _, value in given}
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at = self._tried_at = -KEYS_LAST_SECONDS
        self._reading = asyncio.Lock()
        self._verified: dict[str, _Verified] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    @staticmethod
    def is_signed(secret: str) -> bool:
        """Whether this is the form of a signed token; one of our own has no dots."""
        return secret.count(".") == 2

    async def verify(self, secret: str) -> Credential | None:
        """Who has this token; None when it is not valid, or gives no role here."""
        try:
            if len(secret) > LONGEST_TOKEN:
                raise jwt.InvalidTokenError("it is too long")
            kid = jwt.get_unverified_header(secret).get("kid")
            if not isinstance(kid, (str, NoneType)):
                raise jwt.InvalidTokenError("its kid is not a string")
            key = await self._key(kid)
            if (known := self._verified.get(secret)) is not None and known.key is key and known.ends_at > time.time():
                return known.credential
            claims = jwt.decode(
                secret,
                key,
                algorithms=ALGORITHMS,
                audience=self._environment.oidc_audience,
                issuer=self._environment.oidc_issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
            if claims["exp"] <= time.time():
                # The leeway is for tokens that begin: what was opened with one that has ended would outlive it.
                raise jwt.ExpiredSignatureError("it has expired")
            until = datetime.fromtimestamp(min(claims["exp"], LATEST), UTC)
            found = Credential(self._name(claims), self._role(claims), expires_at=until)
            self._remember(secret, _Verified(found, key, claims["exp"]))
            return found
        except (jwt.PyJWTError, ValueError) as error:
            # Its claims are not logged: they are personal.
            logger.info("a token of the issuer was refused: %s", error)
            return None

    def _remember(self, secret: str, verified: "_Verified") -> None:
        self._verified[secret] = verified
        if len(self._verified) > MOST_VERIFIED:
            del self._verified[next(iter(self._verified))]

    def _name(self, claims: Mapping[str, Any]) -> str:
        claim = self._environment.oidc_name_claim
        name = claims.get(claim)
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise jwt.InvalidTokenError(f"its claim {claim} must have 1 to {LONGEST_NAME} printable characters")
        return NAME_PREFIX + name

    def _role(self, claims: Mapping[str, Any]) -> Role:
        claim = self._environment.oidc_roles_claim
        found: Any = claims.get(claim)
        if found is None:
            found = claims
            for part in claim.split("."):
                found = found.get(part) if isinstance(found, dict) else None
        values = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
        roles = {self._roles.get(value) for value in values if isinstance(value, str)}
        for role in (Role.ADMIN, Role.OPERATOR, Role.VIEWER):
            if role in roles:
                return role
        raise jwt.InvalidTokenError(f"its claim {claim} has no value of CONTAINER_MANAGER_OIDC_ROLES")

    async def _key(self, kid: str | None) -> jwt.PyJWK:
        if kid not in self._keys:
            await self._read_keys(kid)
        elif time.monotonic() > self._read_at + KEYS_LAST_SECONDS and not self._reading.locked():
            # A key that is known does not wait for an issuer that may not answer.
            start_detached(self._read_keys(kid), "reading the issuer's keys", self._tasks)
        if (key := self._keys.get(kid)) is None:
            raise jwt.InvalidTokenError("the issuer publishes no key of this name")
        return key

    async def _read_keys(self, kid: str | None) -> None:
        async with self._reading:
            await self._read_keys_in_turn(kid)

    async def _read_keys_in_turn(self, kid: str | None) -> None:
        """Read the keys, unless another caller has just done so. Known ones stay while the issuer does not answer."""
        now = time.monotonic()
        fresh = kid in self._keys and now < self._read_at + KEYS_LAST_SECONDS
        if fresh or now < self._tried_at + READ_AGAIN_AFTER_SECONDS:
            return
        self._tried_at = now
        issuer = self._environment.oidc_issuer
        try:
            # Proxies and certificates are those of the environment.
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5), trust_env=True) as session:
                about = await _read(session, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
                if about.get("issuer") != issuer:
                    raise ValueError(f"it says that its name is {str(about.get('issuer'))[:200]!r}")
                published = await _read(session, str(about.get("jwks_uri")))
            keys = jwt.PyJWKSet.from_dict(dict(published)).keys
        except (aiohttp.ClientError, TimeoutError, *NOT_A_KEY_SET) as error:
            logger.warning("the keys of the issuer %s could not be read: %s", issuer, error or type(error).__name__)
            return
        self._read_at = now
        usable = (
            key for key in keys if isinstance(key.key_id, (str, NoneType)) and key.public_key_use in (None, "sig")
        )
        self._keys = {key.key_id: key for key in usable}


async def _read(session: aiohttp.ClientSession, url: str) -> Mapping[str, Any]:
    async with session.get(url, allow_redirects=False) as answer:
        if answer.status != 200:
            raise ValueError(f"{url} answered with status {answer.status}")
        body = bytearray()
        async for chunk in answer.content.iter_chunked(65_536):
            body += chunk
            if len(body) > LARGEST_ANSWER:
                raise ValueError(f"the answer of {url} has more than {LARGEST_ANSWER} bytes")
    found = orjson.loads(body)
    if not isinstance(found, dict):
        raise ValueError(f"{url} did not answer with a JSON object")
    return found
