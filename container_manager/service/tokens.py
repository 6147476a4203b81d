"""API tokens: authenticating requests, and managing tokens from the command line."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address, ip_network

from django.db.models import Q

from container_manager import clock, configuration
from container_manager.aio import cancel_and_wait, start_detached
from container_manager.domain.kinds import Role
from container_manager.errors import NotFound, Unavailable
from container_manager.models import ApiToken, AuditEntry
from container_manager.observability import metrics
from container_manager.process import Process
from container_manager.service.oidc import Issuer
from container_manager.specs import TokenSpec
from container_manager.store import audit, threads
from container_manager.store import tokens as token_store
from container_manager.store.tokens import Created, Credential, NewToken
from container_manager.store.transaction import Actor, commit_one

REFUSED_RECORDED_SECONDS = 60.0
MOST_ADDRESSES, OTHERS = 100, "others"
"""Addresses that are counted, each minute; all others are counted together."""

MOST_REFUSED, MOST_OF_OTHERS = 100, 1000
"""Wrong tokens that an address, and all that are not counted alone, may send within a minute."""

IPV6_CLIENT = 64
"""Bits of an IPv6 address that are the client's network."""

KNOWN_SECONDS = 1.0
"""How long a token that was looked up counts as valid."""

MOST_REMEMBERED = 10_000
USE_RECORDED_EVERY = timedelta(minutes=1)
COMMAND_LINE = Actor("command line")


@dataclass(slots=True)
class _Accepted:
    """A token that was valid, and until when it is not looked up again, on the monotonic clock."""

    credential: Credential
    until: float = 0.0


class Tokens:
    """The use cases about tokens in a running service."""

    def __init__(self, process: Process) -> None:
        self._writer = process.writer
        environment = configuration.current()
        self._issuer = Issuer(environment) if environment.oidc_issuer else None
        self._recording: set[int] = set()
        self._refused: Counter[str] = Counter()
        self._forbidden: Counter[tuple[Actor, str]] = Counter()
        self._accepted: OrderedDict[str, _Accepted] = OrderedDict()
        self._recording_refused: asyncio.Task[object] | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    async def authenticate(self, secrets: Sequence[str]) -> list[Credential | None]:
        """What each secret gives, or None. Records the use of a token at most once a minute."""
        found = await self._look_up(set(secrets))
        for secret in set(secrets) - found.keys():
            if (accepted := self._accepted.get(token_store.digest(secret))) is not None:
                accepted.until = 0.0
        return [found.get(secret) for secret in secrets]

    def known(self, secret: str) -> Credential | None:
        """What a secret gave a moment ago; None when it has to be looked up."""
        accepted = self._accepted.get(token_store.digest(secret))
        return accepted.credential if accepted is not None and time.monotonic() < accepted.until else None

    def is_signed(self, secret: str) -> bool:
        """Whether this is a token of the issuer, which `verify` reads."""
        return self._issuer is not None and self._issuer.is_signed(secret)

    async def verify(self, secret: str) -> Credential | None:
        """What a token of the issuer gives, or None. It may wait for the issuer, so it is no part of a batch."""
        assert self._issuer is not None  # noqa: S101 - `is_signed` was asked before
        if (found := await self._issuer.verify(secret)) is not None:
            self._remember(secret, _Accepted(found))
        return found

    async def _look_up(self, secrets: set[str]) -> dict[str, Credential]:
        tokens = await threads.read_briefly(token_store.find, secrets)
        since = clock.now() - USE_RECORDED_EVERY
        stale = [token.pk for token in tokens.values() if token.last_used_at is None or token.last_used_at < since]
        for pk in set(stale) - self._recording:
            self._recording.add(pk)
            start_detached(self._record_use(pk), "recording the use of a token", self._tasks)
        found = {
            secret: Credential(token.name, Role(token.role), token.pk, token.expires_at)
            for secret, token in tokens.items()
        }
        for secret, token in tokens.items():
            left = KNOWN_SECONDS
            if token.expires_at is not None:
                left = min(left, (token.expires_at - clock.now()).total_seconds())
            self._remember(secret, _Accepted(found[secret], time.monotonic() + left))
        return found

    def _remember(self, secret: str, accepted: "_Accepted") -> None:
        digest = token_store.digest(secret)
        self._accepted[digest] = accepted
        self._accepted.move_to_end(digest)
        if len(self._accepted) > MOST_REMEMBERED:
            self._accepted.popitem(last=False)

    def is_refused_unread(self, address: str, secret: str) -> bool:
        """Whether a token is not even looked up, because its address has sent too many wrong ones within a minute.

        Tokens that were valid before are, so that clients behind the same proxy are not locked out.
        """
        place = self._counted(address)
        most = MOST_OF_OTHERS if place == OTHERS else MOST_REFUSED
        return self._refused[place] >= most and token_store.digest(secret) not in self._accepted

    def _counted(self, address: str) -> str:
        """As what an address is counted. A client of IPv6 has a whole network of addresses."""
        with suppress(ValueError):
            if (given := ip_address(address)).version == 6:
                address = str(ip_network((given, IPV6_CLIENT), strict=False))
        return address if address in self._refused or len(self._refused) < MOST_ADDRESSES else OTHERS

    async def _record_use(self, pk: int) -> None:
        """Record it without letting the client wait for the writer, which may be busy, overloaded or stopping."""
        try:
            with suppress(Unavailable, *threads.DATABASE_AWAY):
                await self._writer.write_for_client(token_store.touch, pk)
        finally:
            self._recording.discard(pk)

    def note_forbidden(self, actor: Actor, action: str) -> None:
        """Count what a token may not do, for the audit log."""
        if (actor, action) in self._forbidden or len(self._forbidden) < MOST_ADDRESSES:
            self._forbidden[actor, action] += 1
        self._record_soon()

    def note_refused(self, address: str) -> None:
        """Count a refused token; the counts are recorded in the audit log at most once a minute."""
        with metrics.never_failing():
            metrics.REFUSED_TOKENS.inc()
        self._refused[self._counted(address)] += 1
        self._record_soon()

    def _record_soon(self) -> None:
        if self._recording_refused is None or self._recording_refused.done():
            self._recording_refused = start_detached(self._record_refused(), "recording refused tokens")

    async def close(self) -> None:
        """Record what was counted and not recorded yet."""
        await cancel_and_wait(self._recording_refused, *self._tasks)
        await self._write_refused()

    async def _record_refused(self) -> None:
        while self._refused or self._forbidden:
            await asyncio.sleep(REFUSED_RECORDED_SECONDS)
            await self._write_refused()

    async def _write_refused(self) -> None:
        refused, self._refused = self._refused, Counter()
        forbidden, self._forbidden = self._forbidden, Counter()
        entries = [
            *((Actor(audit.UNKNOWN, at), "token refused", "UNAUTHENTICATED", count) for at, count in refused.items()),
            *((actor, action, "FORBIDDEN", count) for (actor, action), count in forbidden.items()),
        ]
        with suppress(Unavailable, *threads.DATABASE_AWAY):
            await asyncio.gather(*(self._writer.write_for_client(audit.record_refused, one) for one in entries))

    async def listed(self) -> list[ApiToken]:
        """All tokens, by name."""
        return await threads.read(token_store.listed)

    async def create(self, spec: TokenSpec, actor: Actor) -> Created:
        """Create a token.

        Raises:
            Conflict: the name exists.
        """
        expires = timedelta(days=spec.expires_in_days) if spec.expires_in_days else None
        created: Created = await self._writer.write_for_client(
            token_store.create, NewToken(spec.name, str(spec.role), expires, actor)
        )
        return created

    async def revoke(self, token_id: int, actor: Actor) -> ApiToken:
        """Revoke a token; returns it as it was.

        Raises:
            NotFound: there is no such token.
        """
        token = next((token for token in await self.listed() if token.pk == token_id), None)
        if token is None:
            raise NotFound("There is no such token.")
        await self._writer.write_for_client(token_store.revoke, (token.name, actor))
        return token

    async def audit_log(self, limit: int, where: Q) -> list[AuditEntry]:
        """The newest entries of the audit log, newest first."""
        return await threads.read(audit.newest, limit, where)

    async def any_exist(self) -> bool:
        """Whether there is any token."""
        return await threads.read(token_store.any_exist)


def create(name: str, role: str, expires: timedelta | None = None) -> str:
    """Create a token; returns its secret. Raises Conflict if the name exists. For commands: not on the event loop."""
    created: Created = commit_one(token_store.create, NewToken(name, role, expires, COMMAND_LINE))
    return created.secret


def revoke(name: str) -> None:
    """Revoke a token. Raises NotFound if it does not exist. For commands: not on the event loop."""
    commit_one(token_store.revoke, (name, COMMAND_LINE))


def audit_log(count: int) -> list[AuditEntry]:
    """The newest entries of the audit log, oldest first. For commands: not on the event loop."""
    return audit.newest(count)[::-1]


def listed() -> list[ApiToken]:
    """All tokens, by name. For commands: not on the event loop."""
    return token_store.listed()
