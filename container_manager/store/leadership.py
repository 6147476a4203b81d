"""Duties that only one process performs. Leases in rows, because session locks do not work through PgBouncer."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from django.db.models import Q
from django.db.models.functions import Now

from container_manager.models import Leadership
from container_manager.store.transaction import Transaction

NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Candidate(NamedTuple):
    """A process that campaigns for duties."""

    owner: str
    duties: Sequence[str]
    lease: timedelta


def campaign(tx: Transaction, items: Sequence[Candidate]) -> list[set[str]]:  # noqa: ARG001
    """Take duties whose lease has expired and renew the candidate's own; answers the duties that it holds."""
    return [_campaign(candidate) for candidate in items]


def _campaign(candidate: Candidate) -> set[str]:
    duties = Leadership.objects.filter(duty__in=candidate.duties)
    if duties.count() < len(candidate.duties):
        new = [Leadership(duty=duty, owner="", expires_at=NEVER) for duty in sorted(candidate.duties)]
        Leadership.objects.bulk_create(new, ignore_conflicts=True)
    own_or_expired = Q(owner=candidate.owner) | Q(expires_at__lt=Now())
    duties.filter(own_or_expired).update(owner=candidate.owner, expires_at=Now() + candidate.lease)
    return set(duties.filter(owner=candidate.owner).values_list("duty", flat=True))


def resign(tx: Transaction, items: Sequence[str]) -> list[None]:  # noqa: ARG001
    """End an owner's leases, so that another process can take over at once; "" ends all leases."""
    for owner in items:
        Leadership.objects.filter(Q(owner=owner) if owner else Q()).update(expires_at=NEVER)
    return [None] * len(items)
