"""What hosts have that no job needs."""

from collections.abc import Sequence

from container_manager.executors.base import OwnedExecution
from container_manager.lifecycle import IN_HAND
from container_manager.models import ContainerJob, EventKind, ExecutorHost
from container_manager.store import bulk
from container_manager.store.transaction import Fact, Transaction


def needed(owned: Sequence[OwnedExecution]) -> set[str]:
    """The ids of those whose attempt is under way; one without a committed id may be about to get it."""
    rows = ContainerJob.objects.filter(bulk.among("id", {execution.job_id for execution in owned}), status__in=IN_HAND)
    jobs = {pk: (attempt, committed) for pk, attempt, committed in rows.values_list("pk", "attempt", "execution_id")}
    return {
        execution.id
        for execution in owned
        if jobs.get(execution.job_id) in {(execution.attempt, ""), (execution.attempt, execution.id)}
    }


def swept(tx: Transaction, items: Sequence[tuple[ExecutorHost, OwnedExecution]]) -> list[None]:
    """Executions that nobody needed were removed."""
    for host, owned in items:
        message = f"Removed {owned.id[:12]}, left from attempt {owned.attempt} of job {owned.job_id}."
        known = ContainerJob.objects.filter(pk=owned.job_id).exists()
        job_id = owned.job_id if known else None
        tx.events.append(Fact(EventKind.HOST_SWEPT, message, job_id, host.pk, host.name, str(host.executor_type)))
    return [None] * len(items)
