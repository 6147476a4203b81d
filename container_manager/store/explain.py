"""What would be decided, and why: plans, suggestions and single verdicts. Nothing here writes."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from container_manager.domain.lifecycle import ACTIVE
from container_manager.errors import NotFound
from container_manager.models import ContainerJob
from container_manager.routing import router
from container_manager.routing.advice import advise
from container_manager.routing.types import Decision, HostState, JobRequirements, Suggestion
from container_manager.store import decisions
from container_manager.store.fleet import view
from container_manager.store.routing_pass import RoutingPass

Assumed = Mapping[int, Mapping[str, Any]]
"""Assumed changes of hosts: by host id, fields of HostState with their values."""


class Plan(NamedTuple):
    """One decision for each job that was asked for, and those by which waiting jobs, their keys, would be placed."""

    decisions: list[Decision]
    waiting: list[Decision]


def plan(fleet: Sequence[HostState], jobs: Sequence[ContainerJob], assumed: Assumed) -> Plan:
    """Where these jobs would go if they were submitted now, on the fleet with the assumed changes.

    Raises:
        NotFound: something is assumed of a host that does not exist.
    """
    by_id = {host.id: host for host in fleet}
    for host_id, changes in assumed.items():
        if host_id not in by_id:
            raise NotFound("assume: there is no such host.")
        by_id[host_id] = by_id[host_id]._replace(**changes)
    return plan_on(list(by_id.values()), jobs)


def plan_on(fleet: Sequence[HostState], jobs: Sequence[ContainerJob]) -> Plan:
    """The same on a given fleet."""
    decided = RoutingPass(router.Fleet(fleet, secrets.randbits(63)), jobs, bounded=False).decisions()
    waiting = [decision for key, decision in sorted(decided.items()) if key > 0]
    return Plan([decided[-1 - index] for index in range(len(jobs))], waiting)


def suggestions(fleet: Sequence[HostState], jobs: Iterable[JobRequirements]) -> dict[JobRequirements, list[Suggestion]]:
    """Single changes that would let jobs with these requirements run now."""
    return {job: advise(fleet, job) for job in jobs}


def why_not(job: ContainerJob, host_id: int) -> decisions.HostVerdict | None:
    """Every check of this host for this job, now; None without such a host. What the job holds there counts as free."""
    state = view().of([host_id]).get(host_id)
    if state is None:
        return None
    needs = job.requirements()
    holds = job.host_id == host_id and job.status in ACTIVE
    if holds:
        state = state._replace(jobs=state.jobs - 1, memory=state.memory - needs.memory, cpu=state.cpu - needs.cpu)
    return decisions.verdict(router.evaluate([state], needs), 0, holds)
