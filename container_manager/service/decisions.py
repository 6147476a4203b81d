"""Decisions: reading and replaying them, planning, and explaining single hosts."""

from collections.abc import Iterable, Mapping, Sequence

from container_manager.models import RoutingDecision
from container_manager.routing.types import Evaluation, HostState, JobRequirements, Suggestion
from container_manager.service.jobs import new_job
from container_manager.specs import JobSpec
from container_manager.store import decisions as decision_store
from container_manager.store import explain, paging, threads
from container_manager.store import jobs as job_store
from container_manager.store.decisions import HostVerdict
from container_manager.store.explain import Assumed, Plan
from container_manager.store.fleet import states
from container_manager.store.records import Recorded
from container_manager.store.transaction import Actor

PLANNER = Actor("plan")


class Decisions:
    """The use cases about decisions. None of them writes."""

    async def plan(self, specs: Sequence[JobSpec], assumed: Assumed) -> Plan:
        """Where these jobs and those that wait would go, on the fleet with the assumed changes.

        Raises:
            NotFound: something is assumed of a host that does not exist.
        """
        return await threads.compute(_plan, await threads.read(states), specs, assumed)

    async def why_not(self, job_id: int, host_id: int) -> HostVerdict | None:
        """Every check of this host for this job, now; None when either does not exist."""
        return await threads.read(_why_not, job_id, host_id)

    async def suggestions(self, jobs: Iterable[JobRequirements]) -> Mapping[JobRequirements, list[Suggestion]]:
        """Single changes that would let jobs with these requirements run now."""
        return await threads.compute(explain.suggestions, await threads.read(states), jobs)

    async def page(self, search: paging.Search, after: paging.Key | None, limit: int) -> paging.Page:
        """A page of decisions."""
        return await threads.read(paging.page, search, after, limit)

    async def by_ids(self, ids: Iterable[int]) -> dict[int, RoutingDecision]:
        """Decisions by id; those that do not exist are left out."""
        return await threads.read(decision_store.by_ids, ids)

    async def of_jobs(self, job_ids: Iterable[int]) -> Mapping[int, list[RoutingDecision]]:
        """The decisions of each job, newest first."""
        return await threads.read(decision_store.of_jobs, job_ids)

    async def evaluations(self, ids: Iterable[int]) -> Mapping[int, Recorded]:
        """Evaluations by id; those that have been deleted are left out."""
        return await threads.read(decision_store.evaluations, ids)

    async def verdicts(self, evaluation: Evaluation, chosen: int | None, after: int, limit: int) -> list[HostVerdict]:
        """The hosts of an evaluation with every check, the chosen one first, from index `after`."""
        return await threads.compute(decision_store.verdicts, evaluation, chosen, after, limit)

    async def replay(self, decision: RoutingDecision, recorded: Recorded | None) -> str:
        """Decide again from the record: SAME, DIFFERENT, OTHER_VERSION or EXPIRED."""
        return await threads.compute(decision_store.replay, decision, recorded)


def _plan(fleet: Sequence[HostState], specs: Sequence[JobSpec], assumed: Assumed) -> Plan:
    return explain.plan(fleet, [new_job(spec, PLANNER) for spec in specs], assumed)


def _why_not(job_id: int, host_id: int) -> HostVerdict | None:
    job = job_store.one(job_id)
    return None if job is None else explain.why_not(job, host_id)
