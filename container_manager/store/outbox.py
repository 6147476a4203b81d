"""Jobs that other code submits in its own transactions. What is put here becomes a job after that transaction.

Events follow the order of commits under a lock of the fleet, which no transaction of unknown length may hold.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from container_manager.database import connection
from container_manager.errors import Conflict
from container_manager.models import ContainerJob, OutboxEntry
from container_manager.store import jobs
from container_manager.store.transaction import EVENT_CHANNEL, Actor, Transaction, under_routing_lock

logger = logging.getLogger(__name__)

TAKEN_AT_ONCE = 200


def put(actor: str, values: Mapping[str, Any]) -> None:
    """Put a job with an idempotency key into the outbox, in the caller's transaction.

    `values`: the attributes of an unsaved ContainerJob.

    Raises:
        Conflict: another job with the key is there already.
    """
    job = {**values, "submitted_at": values["submitted_at"].isoformat()}
    entry, is_new = OutboxEntry.objects.get_or_create(
        key=values["idempotency_key"], defaults={"actor": actor, "job": job}
    )
    if not is_new and entry.job["idempotency_input"] not in values["idempotency_inputs"]:
        raise Conflict("this key was used before with another input.", "idempotencyKey")
    if connection.vendor == "postgresql":
        with connection.cursor() as sql:
            # Sent when the transaction commits; it wakes the processes of the service.
            sql.execute("SELECT pg_notify(%s, '')", [EVENT_CHANNEL])


def waiting() -> list[int]:
    """The oldest entries."""
    return list(OutboxEntry.objects.order_by("pk").values_list("pk", flat=True)[:TAKEN_AT_ONCE])


@under_routing_lock
def take(tx: Transaction, items: Sequence[Sequence[int]]) -> list[None]:
    """Make entries jobs, and delete them. Those that another process has taken already are no longer there."""
    entries = list(OutboxEntry.objects.filter(pk__in=[pk for item in items for pk in item]).order_by("pk"))
    submissions = [jobs.Submission([_job(entry)], Actor(entry.actor)) for entry in entries]
    for entry, (answer,) in zip(entries, jobs.submit(tx, submissions), strict=True):
        if isinstance(answer, Conflict):
            logger.error("a job of %s was not submitted: %s", entry.actor, answer)
    OutboxEntry.objects.filter(pk__in=[entry.pk for entry in entries]).delete()
    return [None] * len(items)


def _job(entry: OutboxEntry) -> ContainerJob:
    return ContainerJob.of({**entry.job, "submitted_at": datetime.fromisoformat(entry.job["submitted_at"])})


def waiting_job(key: str) -> ContainerJob | None:
    """The job in the outbox with this idempotency key, unsaved."""
    entry = OutboxEntry.objects.filter(key=key).first()
    return _job(entry) if entry else None


def find(idempotency_keys: Sequence[str]) -> ContainerJob | None:
    """The job that was submitted with one of these keys; None while it is in the outbox, or was never committed."""
    found: ContainerJob | None = ContainerJob.objects.filter(idempotency_key__in=idempotency_keys).first()
    return found
