"""Reserving a host that a single-job method of the factory has chosen."""

from collections.abc import Sequence
from dataclasses import dataclass

from container_manager.lifecycle import JobStatus
from container_manager.models import ContainerJob, EventKind
from container_manager.routing import router
from container_manager.routing.types import Decision, Verdict
from container_manager.store import decisions as decision_store
from container_manager.store import hosts as host_store
from container_manager.store import jobs as job_store
from container_manager.store.transaction import Transaction, under_routing_lock


@dataclass(frozen=True, slots=True)
class Reservation:
    """A PENDING job, the host chosen for it, and why."""

    job_id: int
    host_id: int
    reason: str


@under_routing_lock
def reserve(tx: Transaction, items: Sequence[Reservation]) -> list[bool]:
    """Route the job to the host if it still fits; False when it does not."""
    return [_reserve(tx, item) for item in items]


def _reserve(tx: Transaction, item: Reservation) -> bool:
    job = ContainerJob.objects.filter(pk=item.job_id, status=JobStatus.PENDING).first()
    if job is None:
        return False
    evaluation = router.evaluate(host_store.snapshot(), decision_store.requirements(job))
    feasible = [host for tier in router.tiers(evaluation) for host in tier]
    chosen = next((host for host in feasible if host.id == item.host_id), None)
    if chosen is None:
        return False
    decision = Decision(job.pk, chosen, Verdict.FEASIBLE, item.reason, 0, evaluation)
    job_store.apply(job, decision)
    job.save(update_fields=job_store.UPDATED_BY_ROUTING)
    (row,) = decision_store.record([(job, decision)])
    tx.event(EventKind.JOB_ROUTED, item.reason, job=job, host=job.host, decision_id=row.pk)
    return True
