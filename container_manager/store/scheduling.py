"""Routing what is pending: all of it, or the jobs that a client names."""

from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import NamedTuple

from container_manager import clock
from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import JobStatus
from container_manager.domain.outcome import FailureReason
from container_manager.errors import NO_JOB, Conflict, NotFound, UserError
from container_manager.models import ContainerJob, RoutingDecision, RoutingEvaluation
from container_manager.observability import metrics
from container_manager.routing import router
from container_manager.routing.types import Decision
from container_manager.store import bulk, pending, reservations
from container_manager.store.fleet import view
from container_manager.store.routing_pass import MOST_PLACED, NamedJob, RoutingPass
from container_manager.store.transaction import Actor, Transaction, under_routing_lock


def route(tx: Transaction, new_jobs: Sequence[ContainerJob] = (), named: Iterable[NamedJob] = ()) -> RoutingPass:
    """Decide on all pending jobs and on `new_jobs` together, and write the decisions."""
    tx.flush()
    began = perf_counter()
    few = len(new_jobs) if len(new_jobs) <= bulk.FEW else 0
    counts = dict.fromkeys((ContainerJob, RoutingEvaluation, RoutingDecision), few)
    allocating = [bulk.ids_query(counts)] if few else []
    fleet, (any_pending, *allocated) = view().deciding(pending.ANY_PENDING, *allocating)
    ids = bulk.ids_of(counts, None, *allocated) if few else None
    done = RoutingPass(fleet, new_jobs, named, saved=bool(any_pending), ids=ids)
    with metrics.never_failing():
        metrics.DECISION_SECONDS.observe(perf_counter() - began)
    done.write(tx)
    return done


class Passed(NamedTuple):
    """What a queue pass has found: whether another one could place more, and whether any job was pending."""

    again: bool
    found: bool


@under_routing_lock
def route_pending(tx: Transaction, items: Sequence[None]) -> list[Passed]:
    """Route what is pending."""
    _fail_overdue(tx)
    done = route(tx)
    again = done.update_reservation(tx) or done.more
    return [Passed(again, done.any_pending)] * len(items)


@under_routing_lock
def route_named(
    tx: Transaction, items: Sequence[tuple[Sequence[int], Actor | None]]
) -> list[list[Decision | UserError]]:
    """Route PENDING jobs by id, together with all that is pending; one answer for each id, in order."""
    wanted = {job_id for ids, _ in items for job_id in ids}
    # A job that a client names does not wait for the end of its back-off.
    these = bulk.id_in("id", wanted)
    ContainerJob.objects.filter(these, status=JobStatus.PENDING).exclude(not_before=None).update(not_before=None)
    rows = ContainerJob.objects.filter(these).values_list("pk", "status", "class_key", "attempt")
    jobs = {row[0]: NamedJob(*row) for row in rows}
    decided: dict[int, Decision] = {}
    while left := [job for pk, job in jobs.items() if job.status == JobStatus.PENDING and pk not in decided]:
        done = route(tx, named=left)
        decided |= done.decisions()
        if not done.more:
            refused = {o.job_class.key: o.refused for o in done.outcomes if o.refused is not None}
            for job in left:
                if job.pk not in decided and job.class_key in refused:
                    decided[job.pk] = router.refuse([job.pk], refused[job.class_key])[0]
            break
    answers = []
    for ids, actor in items:
        answers.append([_answer(job_id, jobs, decided) for job_id in ids])
        if len(ids) == 1:
            tx.audit(actor, "routeJob", ids[0], answers[-1][0])
        else:
            routed = sum(isinstance(answer, Decision) for answer in answers[-1])
            tx.audit(actor, "routeJobs", f"{routed} of {len(ids)} jobs")
    return answers


def _answer(job_id: int, jobs: Mapping[int, NamedJob], decided: Mapping[int, Decision]) -> Decision | UserError:
    if job_id in decided:
        return decided[job_id]
    if job_id not in jobs:
        return NotFound(NO_JOB)
    return Conflict(f"The job is {jobs[job_id].status.upper()}; only a PENDING job can be routed.")


def _fail_overdue(tx: Transaction) -> None:
    """Fail the pending jobs whose queue timeout has passed."""
    now = clock.now()
    rows = ContainerJob.objects.filter(pending.PENDING, queue_deadline__isnull=False, queue_deadline__lte=now)
    late = list(rows.defer("environment")[:MOST_PLACED])
    why = pending.refusals({job.class_key for job in late})
    for job in late:
        if job.reserved_host_id is not None:
            reservations.end_for_job(tx, job.pk)
        reason = why[job.class_key].message if job.class_key in why else "Routing had not come to it."
        job.error = f"It was not routed within its queueTimeoutSeconds of {job.queue_timeout_seconds}. {reason}"
        job.status, job.failure = JobStatus.FAILED, FailureReason.QUEUE_TIMEOUT
        tx.event(EventKind.JOB_FINISHED, job.error, job=job)
    bulk.update(
        ContainerJob,
        f"status = 'failed', failure = '{FailureReason.QUEUE_TIMEOUT}', queue_deadline = NULL",
        {"error": "text", "finished_at": "timestamptz"},
        [(job.pk, job.error, bulk.as_moment(now)) for job in late],
        where="status = 'pending'",
    )
