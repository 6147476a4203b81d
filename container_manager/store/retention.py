"""Deleting what is kept of jobs that ended long ago.

What to delete is found by a reader, so that the writer is busy with the deletion alone.
"""

from collections.abc import Sequence
from datetime import timedelta

from django.db.models import Exists, OuterRef, QuerySet

from container_manager import clock
from container_manager.domain import lifecycle
from container_manager.models import ContainerJob, FleetChange, JobAttempt, JobOutput, RoutingDecision
from container_manager.store import bulk
from container_manager.store.transaction import Transaction

DELETED_AT_ONCE, CHANGES_AT_ONCE = 200, 5000


def ended_jobs(age: timedelta) -> list[int]:
    """Some of the jobs that ended longer ago than this, the oldest first."""
    return list(_ended(age).values_list("pk", flat=True)[:DELETED_AT_ONCE])


def jobs_with_output(age: timedelta) -> list[int]:
    """Some of the jobs that ended longer ago than this and whose output is still stored, the oldest first."""
    kept = Exists(JobOutput.objects.filter(job_id=OuterRef("pk")))
    return list(_ended(age).filter(kept).values_list("pk", flat=True)[:DELETED_AT_ONCE])


def _ended(age: timedelta) -> QuerySet[ContainerJob]:
    ended = ContainerJob.objects.filter(status__in=lifecycle.TERMINAL, finished_at__lt=clock.now() - age)
    return ended.order_by("pk")


def delete_jobs(tx: Transaction, items: Sequence[Sequence[int]]) -> list[None]:  # noqa: ARG001
    """Delete jobs with everything that is kept about them, except their events, which have a retention of their own."""
    pks = [pk for item in items for pk in item]
    # A job may have been retried meanwhile.
    pks = list(
        ContainerJob.objects.filter(pk__in=pks, status__in=lifecycle.TERMINAL)
        .select_for_update()
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    for model in (JobOutput, JobAttempt, RoutingDecision):
        model._default_manager.filter(job_id__in=pks).delete()  # noqa: SLF001 - Django's own name
    ContainerJob.objects.filter(pk__in=pks).delete()
    return [None] * len(items)


def delete_outputs(tx: Transaction, items: Sequence[Sequence[int]]) -> list[None]:  # noqa: ARG001
    """Delete the output of jobs."""
    JobOutput.objects.filter(job_id__in=[pk for item in items for pk in item]).delete()
    return [None] * len(items)


def delete_fleet_changes(tx: Transaction, items: Sequence[timedelta]) -> list[bool]:  # noqa: ARG001
    """Delete changes that are older than this, but for the newest; answers whether there may be more."""
    oldest = clock.now() - min(items)
    first = list(FleetChange.objects.order_by("pk").values_list("pk", "at")[: CHANGES_AT_ONCE + 1])
    old = [pk for pk, at in first[:-1] if at < oldest]
    if old:
        FleetChange.objects.filter(bulk.id_in("id", old)).delete()
    return [len(old) == CHANGES_AT_ONCE] * len(items)
