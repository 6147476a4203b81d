"""Who does what one process is enough for: leases in rows, because PgBouncer gives no session to hold a lock in."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from django.db.models import Q
from django.db.models.functions import Now

from container_manager.models import Leadership
from container_manager.store.transaction import Transaction

NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Candidate(NamedTuple):
    """A process that would do these duties."""

    owner: str
    duties: Sequence[str]
    lease: timedelta


def stand(tx: Transaction, items: Sequence[Candidate]) -> list[set[str]]:  # noqa: ARG001
    """Take the duties that nobody has, and keep one's own for another lease; answers which ones the candidate has."""
    return [_stand(candidate) for candidate in items]


def _stand(candidate: Candidate) -> set[str]:
    duties = Leadership.objects.filter(duty__in=candidate.duties)
    if duties.count() < len(candidate.duties):
        new = [Leadership(duty=duty, owner="", expires_at=NEVER) for duty in sorted(candidate.duties)]
        Leadership.objects.bulk_create(new, ignore_conflicts=True)
    mine_or_nobodys = Q(owner=candidate.owner) | Q(expires_at__lt=Now())
    duties.filter(mine_or_nobodys).update(owner=candidate.owner, expires_at=Now() + candidate.lease)
    return set(duties.filter(owner=candidate.owner).values_list("duty", flat=True))


def resign(tx: Transaction, items: Sequence[str]) -> list[None]:  # noqa: ARG001
    """Give up what an owner has, so that another takes over at once; "" is everybody."""
    for owner in items:
        Leadership.objects.filter(Q(owner=owner) if owner else Q()).update(expires_at=NEVER)
    return [None] * len(items)
