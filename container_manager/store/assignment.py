"""Writing decisions: jobs get their hosts, decisions and events are recorded."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from container_manager import clock
from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import JobStatus
from container_manager.models import ContainerJob
from container_manager.observability import metrics
from container_manager.routing import router
from container_manager.routing.types import Decision, Verdict
from container_manager.store import bulk, decisions, reservations
from container_manager.store.fleet import states
from container_manager.store.transaction import NewEvent, Transaction, under_routing_lock

logger = logging.getLogger(__name__)


def assign(tx: Transaction, placed: Iterable[Decision]) -> None:
    """Route saved PENDING jobs to the hosts of their decisions, whose keys are job ids."""
    rows, now = [], bulk.as_moment(clock.now())
    for decision in placed:
        if decision.evaluation.requirements.reserved_host is not None:
            reservations.end_for_job(tx, decision.key)
        assert decision.host is not None  # noqa: S101 - it was placed
        rows.append((decision.key, decision.host.id, decision.host.executor_type, decision.reason, now))
    bulk.update(
        ContainerJob,
        "status = 'routed', queue_deadline = NULL",
        {"host_id": "bigint", "executor_type": "text", "routing_reason": "text", "routed_at": "timestamptz"},
        rows,
        where="status = 'pending'",
    )


def record(tx: Transaction, decided: Sequence[tuple[int, int, Decision]], ids: decisions.Ids) -> None:
    """Record decisions, given as (job id, attempt, decision), with an event for each, and log them."""
    decisions.record(tx, decided, ids)
    for (job_id, attempt, decision), decision_id in zip(decided, ids.decisions, strict=True):
        host = decision.host
        tx.counted.append((metrics.DECISIONS, _labels(decision)))
        tx.events.append(
            NewEvent(
                EventKind.JOB_ROUTED,
                decision.reason,
                job_id,
                host.id,
                host.name,
                host.executor_type,
                decision_id,
                attempt,
            )
            if host
            else NewEvent(EventKind.JOB_REFUSED, decision.reason, job_id, decision_id=decision_id, attempt=attempt)
        )
    if len(decided) == 1:
        job_id, attempt, decision = decided[0]
        host_name = decision.host.name if decision.host else ""
        where = f"host {host_name}" if host_name else "no host"
        fields = {"job": job_id, "attempt": attempt, "host": host_name}
        logger.info("routing: job %s to %s: %s", job_id, where, decision.reason, extra=fields)
    elif decided:
        placed = sum(1 for _, _, decision in decided if decision.host is not None)
        logger.info("routing: %d jobs placed, %d refused", placed, len(decided) - placed)


def _labels(decision: Decision) -> tuple[str, str, str]:
    """The labels of the decision's metric: outcome, code, executor type."""
    if decision.host is not None:
        return "routed", "", decision.host.executor_type
    evaluation = decision.evaluation
    rejections = evaluation.rejections()
    most = max(rejections, key=lambda code: rejections[code], default="")
    return evaluation.verdict().name.lower(), most, ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A host that a caller has chosen for a PENDING job, and why."""

    job_id: int
    host_id: int
    reason: str


@under_routing_lock
def assign_chosen(tx: Transaction, items: Sequence[Choice]) -> list[bool]:
    """Route each job to the host chosen for it, if it still fits; answers whether it does."""
    return [_assign_chosen(tx, item) for item in items]


def _assign_chosen(tx: Transaction, item: Choice) -> bool:
    job = ContainerJob.objects.filter(pk=item.job_id, status=JobStatus.PENDING).defer("environment").first()
    if job is None:
        return False
    tx.flush()
    evaluation = router.evaluate(states(), job.requirements())
    feasible = (evaluation.hosts[at] for at in evaluation.feasible())
    chosen = next((host for host in feasible if host.id == item.host_id), None)
    if chosen is None:
        return False
    decision = Decision(job.pk, chosen, Verdict.FEASIBLE, item.reason, 0, evaluation)
    assign(tx, [decision])
    record(tx, [(job.pk, job.attempt, decision)], decisions.new_ids([decision]))
    return True
