"""Executions on hosts that no job needs."""

from collections.abc import Sequence

from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import CLAIMED
from container_manager.executors.base import OwnedExecution
from container_manager.models import ContainerJob, ExecutorHost
from container_manager.store import bulk
from container_manager.store.transaction import NewEvent, Transaction


def needed(owned: Sequence[OwnedExecution]) -> set[str]:
    """The ids of executions whose attempt is under way. An execution without a committed id may be about to get one."""
    rows = ContainerJob.objects.filter(bulk.id_in("id", {execution.job_id for execution in owned}), status__in=CLAIMED)
    jobs = {pk: (attempt, committed) for pk, attempt, committed in rows.values_list("pk", "attempt", "execution_id")}
    return {
        execution.id
        for execution in owned
        if jobs.get(execution.job_id) in {(execution.attempt, ""), (execution.attempt, execution.id)}
    }


def swept(tx: Transaction, items: Sequence[tuple[ExecutorHost, OwnedExecution]]) -> list[None]:
    """Record that executions which no job needed were removed."""
    for host, owned in items:
        message = f"Removed {owned.id[:12]}, left from attempt {owned.attempt} of job {owned.job_id}."
        known = ContainerJob.objects.filter(pk=owned.job_id).exists()
        job_id = owned.job_id if known else None
        tx.events.append(NewEvent(EventKind.HOST_SWEPT, message, job_id, host.pk, host.name, str(host.executor_type)))
    return [None] * len(items)
