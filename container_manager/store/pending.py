"""Pending jobs by class: the oldest of each, why the class waits, and a summary for people."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from django.db.models import BooleanField, Count, Min, Q, QuerySet, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast
from django.db.models.lookups import Contains

from container_manager import clock
from container_manager.database import atomic, connection
from container_manager.models import ContainerJob, ExecutorHost, QueueRefusal, class_key
from container_manager.routing.reasons import refusal
from container_manager.routing.types import Evaluation
from container_manager.store import bulk
from container_manager.store.transaction import Transaction

# A literal, not a parameter: SQLite uses a partial index only if it can prove that the query's condition implies it.
PENDING = RawSQL("container_manager_containerjob.status = 'pending'", [], output_field=BooleanField())

# Jumps from class to class on the index `job_waiting`, and reads only the oldest job of each class.
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
           job.failed_hosts, job.unfit_hosts,
           refusal.verdict AS refused_verdict, refusal.rejections AS refused_rejections
    FROM heads
    JOIN container_manager_containerjob job ON job.id = heads.id
    LEFT JOIN container_manager_queuerefusal refusal ON refusal.class_key = job.class_key
"""


ANY_PENDING: bulk.Query = ("SELECT 1 FROM container_manager_containerjob WHERE status = 'pending' LIMIT 1", [])
"""Usually no job is pending, and this is the cheapest way to find out."""


def heads(now: datetime) -> list[ContainerJob]:
    """The oldest job of each pending class that may be routed now, with the class's last refusal."""
    found = ContainerJob.objects.raw(_HEADS, [bulk.as_moment(now)])
    if connection.vendor != "postgresql":
        return list(found)
    with atomic(savepoint=False), connection.cursor() as cursor:
        # Without fresh statistics, as after a batch, the planner would choose an index and sort for every class.
        cursor.execute("SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        rows = list(found)
        cursor.execute("SET LOCAL enable_sort = on; SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on")
        return rows


def reclassify(job: ContainerJob, **values: Any) -> None:
    """Change what routing reads of a job, which thereby may belong to another class."""
    for name, value in values.items():
        setattr(job, name, value)
    ContainerJob.objects.filter(pk=job.pk).update(**values, class_key=(key := class_key(job.requirements())))
    job.class_key = key


# ------------------------------------------------------------------ refusals, one per class


def refusals(keys: Iterable[str]) -> dict[str, QueueRefusal]:
    """Why classes wait, by class key."""
    return QueueRefusal.objects.in_bulk(list(keys))


def names_any(column: str, codes: Iterable[str]) -> Q:
    """The condition that rejections, a column with pairs of code and count, have one of these codes."""
    text, where = Cast(column, TextField()), Q(pk__in=[])
    for code in codes:
        where |= Q(Contains(text, f'"{code}"'))
    return Q(**{f"{column}__isnull": False}) & where


def classes_refused_for(codes: Iterable[str]) -> QuerySet[Any, Any]:
    """The keys of classes that wait because some host fails one of these checks; a query that was not executed yet."""
    return QueueRefusal.objects.filter(names_any("rejections", codes)).values("class_key")


def is_known(head: Any, evaluation: Evaluation) -> bool:
    """Whether the class of this job from `heads` was refused with the same verdict and counts before."""
    if head is None or head.refused_verdict != evaluation.verdict().name:
        return False
    return bool(orjson.loads(head.refused_rejections) == [list(pair) for pair in evaluation.rejections().items()])


def store_refusals(refused: Iterable[tuple[str, Evaluation]]) -> None:
    """Store why classes wait, given as (class key, evaluation)."""
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


def delete_refusals(keys: Collection[str]) -> None:
    """Delete the refusals of classes without pending jobs."""
    if keys:
        QueueRefusal.objects.filter(pk__in=keys).delete()


def delete_unused_refusals(tx: Transaction, items: Sequence[None]) -> list[None]:  # noqa: ARG001
    """Delete the refusals of classes whose pending jobs were all cancelled or have failed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM container_manager_queuerefusal WHERE NOT EXISTS (SELECT 1 FROM container_manager_containerjob "
            "job WHERE job.status = 'pending' AND job.class_key = container_manager_queuerefusal.class_key)"
        )
    return [None] * len(items)


# ------------------------------------------------------------------ the summary

NO_REFUSAL: tuple[str, tuple[tuple[str, int], ...]] = ("NOT_NOW", ())
"""What jobs wait for that no check refuses: the end of their back-off, or their turn."""


class PendingGroup(NamedTuple):
    """Pending jobs with the same refusal: how many there are, and since when the oldest has waited."""

    verdict: str
    rejections: list[tuple[str, int]]
    jobs: int
    oldest: datetime


def groups() -> list[PendingGroup]:
    """The pending jobs by their refusal, the largest group first."""
    now = clock.now()
    pending = ContainerJob.objects.filter(PENDING)
    ready = pending.filter(Q(not_before=None) | Q(not_before__lte=now)).values_list("class_key")
    classes = list(ready.annotate(jobs=Count("pk"), oldest=Min("pk")))
    heads = ContainerJob.objects.only("submitted_at").in_bulk([oldest for _, _, oldest in classes])
    why = refusals(key for key, _, _ in classes)
    found: defaultdict[tuple[str, tuple[tuple[str, int], ...]], list[tuple[int, datetime]]] = defaultdict(list)
    for key, jobs, oldest in classes:
        known = why.get(key)
        what = (known.verdict, tuple((code, count) for code, count in known.rejections)) if known else NO_REFUSAL
        found[what].append((jobs, heads[oldest].submitted_at))
    back_off = pending.filter(not_before__isnull=False, not_before__gt=now)
    backing_off = back_off.aggregate(jobs=Count("pk"), oldest=Min("submitted_at"))
    if backing_off["jobs"]:
        found[NO_REFUSAL].append((backing_off["jobs"], backing_off["oldest"]))
    summary = [
        PendingGroup(verdict, list(rejections), sum(jobs for jobs, _ in members), min(oldest for _, oldest in members))
        for (verdict, rejections), members in found.items()
    ]
    return sorted(summary, key=lambda group: -group.jobs)


def next_change(since: datetime) -> datetime | None:
    """When, after `since`, time alone next changes what can be routed.

    That is the end of a back-off, of a queue timeout, of an ejection or of a cooldown; None when there is none.
    """
    pending = ContainerJob.objects.filter(PENDING)
    moments = [
        pending.filter(not_before__isnull=False, not_before__gt=since).aggregate(at=Min("not_before"))["at"],
        pending.filter(queue_deadline__isnull=False).aggregate(at=Min("queue_deadline"))["at"],
        ExecutorHost.objects.filter(ejected_until__gt=since).aggregate(at=Min("ejected_until"))["at"],
        ExecutorHost.objects.filter(cooldown_until__gt=since).aggregate(at=Min("cooldown_until"))["at"],
    ]
    return min((moment for moment in moments if moment is not None), default=None)
