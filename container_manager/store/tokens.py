"""API tokens: 256 random bits, of which only a hash is stored."""

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from container_manager import clock
from container_manager.domain.kinds import Role
from container_manager.errors import Conflict, NotFound
from container_manager.models import ApiToken
from container_manager.store.transaction import Actor, Transaction

PREFIX = "cm_"


class Credential(NamedTuple):
    """What a valid token gives: the name of its holder and a role. `token_id` is 0 for a token of an issuer."""

    name: str
    role: Role
    token_id: int = 0
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token to create; with `expires` None it lasts until it is revoked."""

    name: str
    role: str
    expires: timedelta | None = None
    actor: Actor | None = None


class Created(NamedTuple):
    """A new token and its secret, which is shown once and not stored."""

    token: ApiToken
    secret: str


def create(tx: Transaction, items: Sequence[NewToken]) -> list[Created | Conflict]:
    """Create tokens."""
    return [_create(tx, item) for item in items]


def _create(tx: Transaction, item: NewToken) -> Created | Conflict:
    if ApiToken.objects.filter(name=item.name).exists():
        exists = Conflict(f"a token named {item.name!r} exists already.", "name")
        tx.audit(item.actor, "token create", item.name, exists)
        return exists
    secret = PREFIX + secrets.token_urlsafe(32)
    expires_at = clock.now() + item.expires if item.expires else None
    token = ApiToken.objects.create(name=item.name, role=item.role, digest=digest(secret), expires_at=expires_at)
    tx.audit(item.actor, "token create", item.name, detail=f"role {item.role}")
    return Created(token, secret)


def revoke(tx: Transaction, items: Sequence[tuple[str, Actor | None]]) -> list[NotFound | None]:
    """Delete tokens by name."""
    answers: list[NotFound | None] = []
    for name, actor in items:
        deleted, _ = ApiToken.objects.filter(name=name).delete()
        answers.append(None if deleted else NotFound(f"There is no token named {name!r}."))
        tx.audit(actor, "token revoke", name, answers[-1])
    return answers


def touch(tx: Transaction, items: Sequence[int]) -> list[None]:  # noqa: ARG001
    """Record that tokens were used now."""
    ApiToken.objects.filter(pk__in=items).update(last_used_at=clock.now())
    return [None] * len(items)


def any_exist() -> bool:
    """Whether there is any token."""
    return ApiToken.objects.exists()


def listed() -> list[ApiToken]:
    """All tokens, by name."""
    return list(ApiToken.objects.order_by("name"))


def find(shown: Collection[str], now: datetime | None = None) -> dict[str, ApiToken]:
    """The tokens of these secrets, by secret; unknown and expired ones are left out."""
    by_digest = {digest(secret): secret for secret in shown}
    found = ApiToken.objects.filter(digest__in=by_digest)
    valid = found.exclude(expires_at__lte=now or clock.now())
    return {by_digest[token.digest]: token for token in valid}


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
