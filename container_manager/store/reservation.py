"""Reserving a host that a single-job method of the factory has chosen."""

from collections.abc import Sequence
from dataclasses import dataclass

from container_manager.lifecycle import JobStatus
from container_manager.models import ContainerJob
from container_manager.routing import router
from container_manager.routing.types import Decision, Verdict
from container_manager.store import hosts as host_store
from container_manager.store.decisions import new_ids
from container_manager.store.routing import assign, tell
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
    job = ContainerJob.objects.filter(pk=item.job_id, status=JobStatus.PENDING).defer("environment").first()
    if job is None:
        return False
    tx.flush()
    evaluation = router.evaluate(host_store.snapshot(), job.requirements())
    chosen = next(
        (evaluation.hosts[at] for at in evaluation.feasible() if evaluation.hosts[at].id == item.host_id), None
    )
    if chosen is None:
        return False
    decision = Decision(job.pk, chosen, Verdict.FEASIBLE, item.reason, 0, evaluation)
    assign(tx, [decision])
    tell(tx, [(job.pk, job.attempt, decision)], new_ids([decision]))
    return True
