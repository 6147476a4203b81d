"""Leases: which worker drives which jobs, and until when by the database's clock."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from django.db.models import Case, F, Q, QuerySet, Value, When
from django.db.models.functions import Now

from container_manager.database import connection
from container_manager.domain.lifecycle import CLAIMED, JobStatus
from container_manager.models import ContainerJob, ExecutorHost
from container_manager.store import bulk
from container_manager.store.transaction import Claimed, Fence, Transaction, Worker

CLAIM_AT_ONCE = 500


def claim(tx: Transaction, items: Sequence[Worker]) -> list[list[Claimed]]:  # noqa: ARG001
    """Give each worker the jobs on hosts its node can reach that are ROUTED or whose lease has expired."""
    return [_claim(worker) for worker in items]


def any_to_claim(worker: Worker) -> bool:
    """Whether there are jobs to claim."""
    return _to_claim(worker).exists()


def _to_claim(worker: Worker) -> QuerySet[ContainerJob]:
    free = Q(status=JobStatus.ROUTED) | Q(status__in=CLAIMED, lease_expires_at__lt=Now())
    return ContainerJob.objects.filter(free, host__node__in=["", worker.node])


def _claim(worker: Worker) -> list[Claimed]:
    rows = _to_claim(worker).order_by("-priority", "pk")
    if connection.features.has_select_for_update_skip_locked:
        rows = rows.select_for_update(skip_locked=True, of=("self",))
    ids = list(rows.values_list("pk", flat=True)[:CLAIM_AT_ONCE])
    if not ids:
        return []
    ContainerJob.objects.filter(bulk.id_in("id", ids)).update(
        status=Case(When(status=JobStatus.ROUTED, then=Value(JobStatus.LAUNCHING)), default=F("status")),
        lease_owner=worker.owner,
        lease_epoch=F("lease_epoch") + 1,
        lease_expires_at=Now() + worker.lease,
    )
    jobs = list(ContainerJob.objects.filter(bulk.id_in("id", ids)).order_by("-priority", "pk"))
    hosts = ExecutorHost.objects.in_bulk({job.host_id for job in jobs})
    for job in jobs:
        job.host = hosts.get(job.host_id)
    return [(job, Fence(job.pk, job.lease_epoch)) for job in jobs]


class Renewed(NamedTuple):
    """Ids among the claims to renew: jobs that a client wants cancelled, and jobs that another worker holds now."""

    cancelled: list[int]
    lost: list[int]


def renew(tx: Transaction, items: Sequence[tuple[Worker, Sequence[Fence]]]) -> list[Renewed]:  # noqa: ARG001
    """Extend the worker's leases on these jobs."""
    return [_renew(worker, fences) for worker, fences in items]


def _renew(worker: Worker, fences: Sequence[Fence]) -> Renewed:
    rows = ContainerJob.objects.filter(bulk.id_in("id", [fence.job_id for fence in fences]), status__in=CLAIMED)
    locked = rows.order_by("pk").select_for_update().values_list("pk", "lease_epoch", "cancel_requested_at")
    held = {Fence(pk, epoch): cancelled is not None for pk, epoch, cancelled in locked}
    mine = [fence for fence in fences if fence in held]
    ContainerJob.objects.filter(bulk.id_in("id", [fence.job_id for fence in mine])).update(
        lease_expires_at=Now() + worker.lease
    )
    return Renewed(
        cancelled=[fence.job_id for fence in mine if held[fence]],
        lost=[fence.job_id for fence in fences if fence not in held],
    )


def expire(tx: Transaction, items: Sequence[str]) -> list[int]:  # noqa: ARG001
    """End all leases of an owner, so that the next claim takes its jobs over at once; "" ends all leases."""
    return [
        ContainerJob.objects.filter(Q(lease_owner=owner) if owner else Q(), status__in=CLAIMED).update(
            lease_expires_at=Now() - timedelta(seconds=1)
        )
        for owner in items
    ]
