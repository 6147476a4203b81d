"""Classes of waiting jobs: their oldest jobs, why they wait, and the one job for which room is kept."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson
from django.db import connection, transaction
from django.db.models import BooleanField
from django.db.models.expressions import RawSQL

from container_manager.models import ContainerJob, EventKind, QueueRefusal, class_key
from container_manager.routing.reasons import refusal
from container_manager.routing.types import Evaluation, HostState
from container_manager.store import bulk
from container_manager.store.transaction import Fact, Transaction

# A literal, not a parameter: SQLite uses a partial index only when it can prove that the condition implies it.
PENDING = RawSQL("container_manager_containerjob.status = 'pending'", [], output_field=BooleanField())

# Jumps from class to class on the index `job_waiting`, and reads of each class its oldest job only.
_HEADS = """
    WITH RECURSIVE waiting (class_key) AS (
        SELECT (SELECT class_key FROM container_manager_containerjob
                WHERE status = 'pending' ORDER BY class_key, id LIMIT 1)
        UNION ALL
        SELECT (SELECT class_key FROM container_manager_containerjob
                WHERE status = 'pending' AND class_key > waiting.class_key ORDER BY class_key, id LIMIT 1)
        FROM waiting WHERE waiting.class_key IS NOT NULL
    ), heads (id) AS (
        SELECT (SELECT id FROM container_manager_containerjob
                WHERE status = 'pending' AND class_key >= waiting.class_key AND class_key <= waiting.class_key
                    AND (not_before IS NULL OR not_before <= %s)
                ORDER BY class_key, id LIMIT 1)
        FROM waiting WHERE waiting.class_key IS NOT NULL
    )
    SELECT job.id, job.class_key, job.attempt, job.memory_limit, job.cpu_limit, job.preferred_executor,
           job.executor_required, job.region_preference, job.region_required, job.host_selector, job.strategy,
           job.priority, job.reserved_host_id, job.submitted_at, job.user, job.network, job.beyond,
           refusal.verdict AS refused_verdict, refusal.rejections AS refused_rejections
    FROM heads
    JOIN container_manager_containerjob job ON job.id = heads.id
    LEFT JOIN container_manager_queuerefusal refusal ON refusal.class_key = job.class_key
"""


def heads(now: datetime) -> list[ContainerJob]:
    """The oldest job of each class that waits and may be routed now, with why it was refused last."""
    with connection.cursor() as cursor:
        # Mostly nothing waits, and this is the shortest way to know.
        cursor.execute("SELECT 1 FROM container_manager_containerjob WHERE status = 'pending' LIMIT 1")
        if cursor.fetchone() is None:
            return []
    found = ContainerJob.objects.raw(_HEADS, [bulk.as_moment(now)])
    if connection.vendor != "postgresql":
        return list(found)
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        # Without statistics, as after a batch, the planner takes an index that has to be sorted for every class.
        cursor.execute("SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        rows = list(found)
        cursor.execute("SET LOCAL enable_sort = on; SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on")
        return rows


# ------------------------------------------------------------------ refusals, one a class


def refusals(keys: Iterable[str]) -> dict[str, QueueRefusal]:
    """Why classes wait, by their keys."""
    return QueueRefusal.objects.in_bulk(list(keys))


def is_known(head: Any, evaluation: Evaluation) -> bool:
    """Whether this is what the class was refused with before, by its head."""
    if head is None or head.refused_verdict != evaluation.verdict().name:
        return False
    return bool(orjson.loads(head.refused_rejections) == [list(pair) for pair in evaluation.rejections().items()])


def keep(refused: Iterable[tuple[str, Evaluation]]) -> None:
    """Keep why classes wait from now on, by their keys."""
    rows = [
        QueueRefusal(
            class_key=key,
            verdict=evaluation.verdict().name,
            message=refusal(evaluation),
            rejections=[list(pair) for pair in evaluation.rejections().items()],
        )
        for key, evaluation in refused
    ]
    QueueRefusal.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=["class_key"], update_fields=["verdict", "message", "rejections"]
    )


def drop(keys: Collection[str]) -> None:
    """Nobody of these classes waits any more."""
    if keys:
        QueueRefusal.objects.filter(pk__in=keys).delete()


def forget_refusals(tx: Transaction, items: Sequence[None]) -> list[None]:  # noqa: ARG001
    """Drop why classes waited that wait no more, because their jobs were cancelled or have failed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM container_manager_queuerefusal WHERE NOT EXISTS (SELECT 1 FROM container_manager_containerjob "
            "job WHERE job.status = 'pending' AND job.class_key = container_manager_queuerefusal.class_key)"
        )
    return [None] * len(items)


# ------------------------------------------------------------------ the one reservation


def holder() -> ContainerJob | None:
    """The waiting job for which room is kept."""
    return ContainerJob.objects.filter(PENDING, reserved_host__isnull=False).select_related("reserved_host").first()


def reserve(tx: Transaction, job: ContainerJob, host: HostState, evaluation: Evaluation) -> None:
    """Keep the host's room for this job. It becomes a class of its own, since it may now go where others may not."""
    job.reserved_host_id = host.id
    job.class_key = class_key(job.requirements())
    ContainerJob.objects.filter(pk=job.pk).update(reserved_host_id=host.id, class_key=job.class_key)
    keep([(job.class_key, evaluation._replace(requirements=job.requirements()))])
    message = f"Host {host.name} keeps its room for this job, which has waited long."
    tx.events.append(Fact(EventKind.HOST_RESERVED, message, job.pk, host.id, host.name, host.executor_type))


def release(tx: Transaction, job_id: int) -> None:
    """Room that was kept for this job, if any, is anybody's again."""
    jobs = ContainerJob.objects.filter(pk=job_id).exclude(reserved_host=None)
    job = jobs.defer("environment").select_related("reserved_host").first()
    if job is None:
        return
    host, job.reserved_host_id = job.reserved_host, None
    ContainerJob.objects.filter(pk=job_id).update(reserved_host_id=None, class_key=class_key(job.requirements()))
    if host is not None:
        tx.event(EventKind.HOST_RELEASED, f"Host {host.name} keeps no room for this job any more.", job=job, host=host)


def release_host(tx: Transaction, host_id: int) -> None:
    """The host keeps room for nobody any more."""
    for job_id in ContainerJob.objects.filter(reserved_host_id=host_id).values_list("pk", flat=True):
        release(tx, job_id)
