"""Encrypting everything again with the first secret key, while other processes go on."""

from collections.abc import Iterator, Sequence

from django.db.models import BinaryField, ExpressionWrapper, F, Model, QuerySet, Value
from django.db.models.expressions import Combinable

from container_manager import crypto
from container_manager.models import ContainerJob, ExecutorHost, Installation, OutboxEntry
from container_manager.store.installation import CANARY
from container_manager.store.transaction import Actor, Transaction, commit_one, under_routing_lock

ENCRYPTED: list[tuple[type[Model], str]] = [
    (ExecutorHost, "config"),
    (ContainerJob, "environment"),
    (OutboxEntry, "job"),
]
BATCH = 500


def rotate(actor: Actor) -> int:
    """Encrypt again what another than the first key has encrypted; returns how many values.

    Raises:
        WrongKeyError: a value was encrypted with a key that is not configured; those before it are done.
    """
    count = 0
    # Until nothing is found, because other processes may write meanwhile.
    while found := _rotate_once():
        count += found
    commit_one(_finish, (actor, count))
    return count


@under_routing_lock
def _finish(tx: Transaction, items: Sequence[tuple[Actor, int]]) -> list[None]:
    Installation.objects.update(canary=crypto.encrypt(CANARY), keys_in_use=crypto.fingerprints()[:1])
    for actor, count in items:
        tx.audit(actor, "rotateKeys", f"{count} values")
    return [None for _ in items]


def _rotate_once() -> int:
    count = 0
    for model, name in ENCRYPTED:
        rows = model._default_manager.exclude(**{name: None}).order_by("pk")  # noqa: SLF001 - Django's own name
        for pk, old in _values(rows, name):
            if not crypto.is_current(old):
                # Unless the value was changed meanwhile, and thereby encrypted with the first key.
                new = Value(crypto.encrypt(crypto.decrypt(old)), BinaryField())
                as_it_was = {"pk": pk, "raw": Value(old, BinaryField())}
                count += rows.annotate(raw=_raw(name)).filter(**as_it_was).order_by().update(**{name: new})
    return count


def _values(rows: QuerySet[Model], name: str) -> Iterator[tuple[int, bytes]]:
    last = 0
    while batch := list(rows.filter(pk__gt=last).annotate(raw=_raw(name)).values_list("pk", "raw")[:BATCH]):
        for pk, raw in batch:
            yield pk, bytes(raw)
        last = batch[-1][0]


def _raw(name: str) -> Combinable:
    """The column as it is stored."""
    return ExpressionWrapper(F(name), BinaryField())
