"""Jobs that other code submits in its own transactions. What is put here becomes a job after that transaction.

Events follow the order of commits under a lock of the fleet, which no transaction of unknown length may hold.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db.models import BinaryField, ExpressionWrapper, F

from container_manager import crypto
from container_manager.errors import Conflict
from container_manager.models import ContainerJob, OutboxEntry
from container_manager.store import jobs
from container_manager.store.transaction import Actor, Transaction, under_routing_lock

logger = logging.getLogger(__name__)

TAKEN_AT_ONCE = 200


def put(actor: str, values: Mapping[str, Any]) -> None:
    """Put a job with an idempotency key into the outbox, in the caller's transaction.

    `values`: the attributes of an unsaved ContainerJob.

    Raises:
        Conflict: there is another job with the key.
    """
    known = find(values["idempotency_keys"])
    if known is None:
        job = {**values, "submitted_at": values["submitted_at"].isoformat()}
        entry, is_new = OutboxEntry.objects.get_or_create(
            key=values["idempotency_key"], defaults={"actor": actor, "job": job}
        )
        known = None if is_new else _job(entry.job)
    if known is not None and known.idempotency_input not in values["idempotency_inputs"]:
        raise Conflict("this key was used before with another input.", "idempotencyKey")


def waiting() -> list[int]:
    """The oldest entries that can become jobs."""
    return list(OutboxEntry.objects.filter(fault="").order_by("pk").values_list("pk", flat=True)[:TAKEN_AT_ONCE])


@under_routing_lock
def take(tx: Transaction, items: Sequence[int]) -> list[None]:
    """Make entries jobs, and delete them. Those that another process has taken already are no longer there.

    An entry that cannot become a job is set aside, and keeps none of the others up.
    """
    # Not decrypted by the query, because one value that is encrypted with another key would fail them all.
    raw = ExpressionWrapper(F("job"), BinaryField())
    rows = OutboxEntry.objects.filter(pk__in=items, fault="").annotate(raw=raw).order_by("pk")
    made, actors = dict[int, ContainerJob](), dict[int, Actor]()
    for pk, actor, data in rows.values_list("pk", "actor", "raw"):
        try:
            made[pk], actors[pk] = _job(crypto.decrypt(bytes(data))), Actor(actor)
        except Exception as error:  # noqa: BLE001 - an error in one entry must not stop the others
            _set_aside(pk, actor, repr(error))
    answers = jobs.submit(tx, [jobs.Submission([job], actors[pk]) for pk, job in made.items()])
    for pk, (answer,) in zip(made, answers, strict=True):
        if isinstance(answer, Conflict):
            _set_aside(pk, actors[pk].name, str(answer))
    OutboxEntry.objects.filter(pk__in=made, fault="").delete()
    return [None] * len(items)


def set_aside(tx: Transaction, items: Sequence[tuple[int, str]]) -> list[None]:  # noqa: ARG001
    """Keep entries that cannot become jobs, each with the reason."""
    for pk, fault in items:
        _set_aside(pk, "other code", fault)
    return [None] * len(items)


def _set_aside(pk: int, actor: str, fault: str) -> None:
    logger.error("a job that %s has submitted cannot be taken: %s", actor, fault)
    OutboxEntry.objects.filter(pk=pk).update(fault=fault)


def _job(values: Any) -> ContainerJob:
    return ContainerJob.of({**values, "submitted_at": datetime.fromisoformat(values["submitted_at"])})


def waiting_job(key: str) -> ContainerJob | None:
    """The job in the outbox with this idempotency key, unsaved."""
    entry = OutboxEntry.objects.filter(key=key).first()
    return _job(entry.job) if entry else None


def find(idempotency_keys: Sequence[str]) -> ContainerJob | None:
    """The job that was submitted with one of these keys; None while it is in the outbox, or was never committed."""
    found: ContainerJob | None = ContainerJob.objects.filter(idempotency_key__in=idempotency_keys).first()
    return found
