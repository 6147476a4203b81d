"""The root fields that read."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import repeat
from typing import Any

import strawberry
from django.db.models import Q
from graphql import GraphQLError

from container_manager import models
from container_manager.domain.kinds import ExecutorType
from container_manager.errors import UserError
from container_manager.routing.types import Decision
from container_manager.specs import JobSpec
from container_manager.store.hosts import HostOrder
from graphql_api import ids
from graphql_api.auth import IsAdmin
from graphql_api.context import Info
from graphql_api.enums import Verdict
from graphql_api.errors import as_type
from graphql_api.filters import (
    HostFilter,
    JobFilter,
    JobOrder,
    RoutingDecisionFilter,
    RoutingEventFilter,
    condition,
    search,
)
from graphql_api.inputs import (
    LARGEST_ADDITION,
    LARGEST_PLAN,
    HostAssumption,
    HostInput,
    JobInput,
    at_most,
    given,
    read_assumptions,
    read_jobs,
)
from graphql_api.types import events as event_types
from graphql_api.types import hosts as host_types
from graphql_api.types import jobs as job_types
from graphql_api.types import lists as list_types
from graphql_api.types.audit import AuditEntry, entry
from graphql_api.types.capacity import ExecutorCapacity, capacity_together
from graphql_api.types.events import RoutingEvent
from graphql_api.types.hosts import ExecutorHost
from graphql_api.types.jobs import ContainerJob, RoutingDecision
from graphql_api.types.lists import JobConnection
from graphql_api.types.pages import Asked, Connection, Node, check_direction
from graphql_api.types.plans import QueueGroup, QueueSummary, RoutingPlan
from graphql_api.types.plans import planned as planned_results
from graphql_api.types.results import rejection_counts
from graphql_api.types.statistics import JobStats, job_stats
from graphql_api.types.tokens import ApiToken, Viewer, token
from graphql_api.types.verdicts import HostVerdict

NODES: dict[str, Callable[..., Awaitable[Node | None]]] = {
    "ExecutorHost": host_types.host,
    "ContainerJob": job_types.job,
    "JobAttempt": job_types.attempt,
    "RoutingDecision": job_types.decision,
    "RoutingEvent": event_types.event,
    "ApiToken": token,
    "AuditEntry": entry,
}
FOR_ADMINS = {"ApiToken", "AuditEntry"}


@strawberry.type
class Query:
    @strawberry.field
    async def node(self, info: Info, id: strawberry.ID) -> Node | None:
        kind, *numbers = ids.split(id)
        if kind not in NODES:
            ids.bad_input(f"id: there is no type {kind}.")
        if kind in FOR_ADMINS and not IsAdmin().has_permission(None, info):
            raise GraphQLError(IsAdmin.message, extensions=IsAdmin.error_extensions)
        return await NODES[kind](info, *numbers)

    @strawberry.field(
        description="The cursor of the newest event: read it, read the state, then subscribe after it, "
        "and nothing is missed."
    )
    async def event_cursor(self, info: Info) -> str:
        return ids.to_cursor(await info.context.service.events.newest_cursor())

    @strawberry.field(description=f"At most {host_types.LARGEST_PAGE} at a time.")
    async def hosts(
        self,
        info: Info,
        filters: HostFilter | None = None,
        order_by: HostOrder = HostOrder.CREATED,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[ExecutorHost]:
        check_direction(first, after, last, before)
        where = condition(filters, models.ExecutorHost, info)
        return await host_types.hosts(info, where, order_by, (first, after), (last, before))

    @strawberry.field
    async def host(self, info: Info, id: strawberry.ID | None = None, name: str | None = None) -> ExecutorHost | None:
        if (id is None) == (name is None):
            ids.bad_input("host: give either id or name.")
        where = Q(name=name) if id is None else Q(pk=ids.to_pk("ExecutorHost", id))
        rows = await info.context.service.hosts.matching(where, 1, host_types.shown_of_hosts())
        return ExecutorHost.of(rows[0]) if rows else None

    @strawberry.field(description="By executor type and region.")
    async def capacity(
        self, info: Info, executor_type: ExecutorType | None = None, region: str | None = None
    ) -> list[ExecutorCapacity]:
        where = Q() if executor_type is None else Q(executor_type=executor_type)
        where &= Q() if region is None else Q(region=region)
        return [
            ExecutorCapacity(
                executor_type=ExecutorType(group.executor_type),
                region=group.region,
                hosts=len(group.hosts),
                available_hosts=group.available,
                capacity=capacity_together(group.hosts),
            )
            for group in await info.context.service.hosts.capacity(where)
        ]

    @strawberry.field(
        description="A condition for which there is no index is looked for in portions, for a short time: then a page "
        "may have fewer jobs than there are, or none, while `hasNextPage` is true. The next page goes on searching."
    )
    async def jobs(
        self,
        info: Info,
        filters: JobFilter | None = None,
        order_by: JobOrder = JobOrder.SUBMITTED_DESC,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> JobConnection:
        return await list_types.jobs(info, Asked(search(filters, order_by, info), first, after, last, before))

    @strawberry.field
    async def job(self, info: Info, id: strawberry.ID) -> ContainerJob | None:
        return await job_types.job(info, ids.to_pk("ContainerJob", id))

    @strawberry.field(description="Statistics of jobs; by default of the last hour, in steps of a minute.")
    async def job_stats(
        self, info: Info, since: datetime | None = None, until: datetime | None = None, buckets: int = 60
    ) -> JobStats:
        return await job_stats(info, since, until, buckets)

    @strawberry.field
    async def queue(self, info: Info) -> QueueSummary:
        groups, active = await info.context.service.jobs.queue()
        return QueueSummary(
            pending=sum(group.jobs for group in groups),
            active=active,
            oldest_submitted_at=min((group.oldest for group in groups), default=None),
            groups=[
                QueueGroup(
                    verdict=Verdict[group.verdict],
                    jobs=group.jobs,
                    oldest_submitted_at=group.oldest,
                    rejections=rejection_counts(group.rejections),
                )
                for group in groups
            ],
        )

    @strawberry.field(
        description="Where would these go, now or with the fleet changed? Writes nothing. Jobs that wait already come "
        "first, as they would. "
        f"At most {LARGEST_PLAN} jobs at a time."
    )
    async def plan_routing(
        self,
        info: Info,
        jobs: list[JobInput],
        assume: list[HostAssumption] | None = None,
        add_hosts: list[HostInput] | None = None,
    ) -> RoutingPlan:
        at_most(len(add_hosts or []), "addHosts", LARGEST_ADDITION)
        added = [given(entry) for entry in add_hosts or []]
        read = await read_jobs(jobs, "jobs", LARGEST_PLAN)
        specs = [entry for entry in read if isinstance(entry, JobSpec)]
        planned: Iterator[Any]
        waiting: Sequence[Decision] = ()
        try:
            plan, supposed = await info.context.service.decisions.plan(specs, read_assumptions(assume or []), added)
            planned, waiting = iter(planned_results(plan.decisions, supposed)), plan.waiting
        except UserError as error:
            planned = repeat(as_type(error))
        return RoutingPlan(
            placements=[next(planned) if isinstance(entry, JobSpec) else as_type(entry) for entry in read],
            waiting_placed=len(waiting),
            decisions=waiting,
        )

    @strawberry.field(
        description="Every check of this host for this job, now. For a job that holds the host, what it holds counts "
        "as free. Null when either does not exist."
    )
    async def why_not(self, info: Info, job_id: strawberry.ID, host_id: strawberry.ID) -> HostVerdict | None:
        job, host = ids.to_pk("ContainerJob", job_id, "jobId"), ids.to_pk("ExecutorHost", host_id, "hostId")
        found = await info.context.service.decisions.why_not(job, host)
        return HostVerdict.of(found) if found else None

    @strawberry.field(description="Newest first. Pages are made as those of `jobs`.")
    async def routing_decisions(
        self,
        info: Info,
        job_id: strawberry.ID | None = None,
        host_id: strawberry.ID | None = None,
        filters: RoutingDecisionFilter | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[RoutingDecision]:
        wanted = filters or RoutingDecisionFilter()
        wanted = replace(wanted, job_id=job_id or wanted.job_id, host_id=host_id or wanted.host_id)
        return await list_types.decisions(info, Asked(wanted.search(), first, after, last, before))

    @strawberry.field(description="Who the caller is, and what it may do.")
    def viewer(self, info: Info) -> Viewer:
        identity = info.context.identity
        assert identity is not None  # noqa: S101 - the view refuses callers without a token
        return Viewer(name=identity.actor.name, role=identity.role, expires_at=identity.expires_at)

    @strawberry.field(permission_classes=[IsAdmin], description="All API tokens, by name; for admins.")
    async def tokens(self, info: Info) -> list[ApiToken]:
        return [ApiToken.of(row) for row in await info.context.service.tokens.listed()]

    @strawberry.field(
        permission_classes=[IsAdmin], description="Who changed what, when and from where. Newest first; for admins."
    )
    async def audit_log(self, info: Info, first: int | None = None, after: str | None = None) -> Connection[AuditEntry]:
        limit, position = ids.page_size(first), ids.from_cursor(after)
        where = Q() if position is None else Q(pk__lt=position)
        rows = await info.context.service.tokens.audit_log(limit + 1, where)
        nodes = [(row.pk, AuditEntry.of(row)) for row in rows[:limit]]
        return Connection[AuditEntry].of(nodes, more=len(rows) > limit, before=position is not None)

    @strawberry.field(
        description="History, oldest first from `after`; the same order and cursors as the subscription. `last` gives "
        "the newest. Pages are made as those of `jobs`."
    )
    async def routing_events(
        self,
        info: Info,
        filters: RoutingEventFilter | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[RoutingEvent]:
        wanted = (filters or RoutingEventFilter()).search()
        return await event_types.events(info, Asked(wanted, first, after, last, before))
