"""The audit log: who changed what, when and from where, and which tokens were refused."""

from collections.abc import Sequence
from datetime import timedelta

from django.db.models import Q

from container_manager import clock
from container_manager.models import AuditEntry
from container_manager.store import bulk
from container_manager.store.transaction import Actor, Transaction

DELETED_AT_ONCE = 1000
UNKNOWN = "(refused)"
"""The actor of an entry about refused tokens."""


def newest(limit: int, where: Q | None = None) -> list[AuditEntry]:
    """The newest entries, newest first."""
    return list(AuditEntry.objects.filter(where or Q()).order_by("-pk")[:limit])


def record_refused(tx: Transaction, items: Sequence[tuple[Actor, str, str, int]]) -> list[None]:
    """Record what was refused lately, as (actor, action, result, count)."""
    now = bulk.as_moment(clock.now())
    for actor, action, result, count in items:
        tx.audit_entries.append(
            (now, actor.name, actor.address, action, "", result, "once" if count == 1 else f"{count} times")
        )
    return [None] * len(items)


def delete_old(tx: Transaction, items: Sequence[timedelta]) -> list[bool]:  # noqa: ARG001
    """Delete some of the entries that are older than this; answers whether there may be more."""
    old = AuditEntry.objects.filter(at__lt=clock.now() - min(items)).order_by("pk").values_list("pk", flat=True)
    pks = list(old[:DELETED_AT_ONCE])
    AuditEntry.objects.filter(pk__in=pks).delete()
    return [len(pks) == DELETED_AT_ONCE] * len(items)
