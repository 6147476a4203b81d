"""Decisions: reading and replaying them, planning, and explaining single hosts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from container_manager.domain.host_health import HealthStatus
from container_manager.errors import FieldError, ValidationFailed
from container_manager.models import ExecutorHost, RoutingDecision
from container_manager.routing.types import Evaluation, HostState, JobRequirements, Suggestion
from container_manager.service.hosts import read_new
from container_manager.service.jobs import new_job
from container_manager.specs import JobSpec
from container_manager.store import decisions as decision_store
from container_manager.store import explain, paging, threads
from container_manager.store import hosts as host_store
from container_manager.store import jobs as job_store
from container_manager.store.decisions import HostVerdict
from container_manager.store.explain import Assumed, Plan
from container_manager.store.fleet import states
from container_manager.store.records import Recorded
from container_manager.store.transaction import Actor

PLANNER = Actor("plan")


class Decisions:
    """The use cases about decisions. None of them writes."""

    async def plan(
        self, specs: Sequence[JobSpec], assumed: Assumed, added: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[Plan, dict[int, ExecutorHost]]:
        """Where these jobs and those that wait would go, on the fleet with the assumed changes and the added hosts.

        The second result is the added hosts, by their ids in the plan, which are negative.

        Raises:
            NotFound: something is assumed of a host that does not exist.
            ValidationFailed: the values of an added host are invalid, or its name is taken.
        """
        fleet = await threads.read(states)
        hosts = _supposed(added, {host.name for host in fleet})
        with_added = [*fleet, *map(host_store.state, hosts.values())]
        return await threads.compute(_plan, with_added, specs, assumed), hosts

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


def _supposed(inputs: Sequence[Mapping[str, Any]], names: set[str]) -> dict[int, ExecutorHost]:
    """Hosts that are not saved, as they would be once they are healthy."""
    hosts: dict[int, ExecutorHost] = {}
    for i, values in enumerate(inputs):
        prefix = f"addHosts.{i}."
        host = ExecutorHost(pk=-1 - i, **read_new(values, prefix), health_status=HealthStatus.HEALTHY)
        if host.name in names:
            raise ValidationFailed([FieldError(f"{prefix}name", f"{prefix}name: {host.name} exists already.")])
        names.add(host.name)
        host.derive()
        hosts[host.pk] = host
    return hosts


def _plan(fleet: Sequence[HostState], specs: Sequence[JobSpec], assumed: Assumed) -> Plan:
    return explain.plan(fleet, [new_job(spec, PLANNER) for spec in specs], assumed)


def _why_not(job_id: int, host_id: int) -> HostVerdict | None:
    job = job_store.one(job_id)
    return None if job is None else explain.why_not(job, host_id)
