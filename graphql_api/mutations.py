"""The root fields that change hosts (admins) and jobs (operators). Each is a line or two around a service call."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import Annotated, Any, Self, TypeVar

import strawberry
from django.db.models import Q

from container_manager import errors, models
from container_manager.domain import lifecycle
from container_manager.domain.kinds import Role
from container_manager.domain.lifecycle import JobStatus
from container_manager.routing.types import Decision
from container_manager.service.hosts import Applied, Change
from container_manager.service.jobs import MOST_AT_ONCE
from container_manager.specs import LONGEST_LIFE, JobSpec, read_job, read_token
from container_manager.store.hosts import NO_MORE
from container_manager.store.transaction import Actor
from graphql_api import ids
from graphql_api.auth import IsAdmin, IsOperator
from graphql_api.context import Info
from graphql_api.errors import as_type
from graphql_api.filters import HostFilter, JobFilter, condition
from graphql_api.inputs import (
    LARGEST_BATCH,
    LARGEST_CHECK,
    HostInput,
    HostPatch,
    JobInput,
    at_most,
    changes,
    given,
    read_jobs,
)
from graphql_api.types.hosts import ExecutorHost
from graphql_api.types.jobs import ContainerJob, RoutingDecision
from graphql_api.types.results import Conflict, NotFound, RoutingRefused, ValidationFailed
from graphql_api.types.tokens import ApiToken, CreateTokenResult, NewApiToken, RevokeTokenResult

HostResult = Annotated[ExecutorHost | ValidationFailed | NotFound | Conflict, strawberry.union("HostResult")]
SubmitJobResult = Annotated[ContainerJob | ValidationFailed | Conflict, strawberry.union("SubmitJobResult")]
RouteJobResult = Annotated[RoutingDecision | RoutingRefused | NotFound | Conflict, strawberry.union("RouteJobResult")]
JobResult = Annotated[ContainerJob | NotFound | Conflict, strawberry.union("JobResult")]


ApplyHostResult = Annotated[ExecutorHost | ValidationFailed | Conflict, strawberry.union("ApplyHostResult")]
HostChange = strawberry.enum(
    Change,
    name="HostChange",
    description="What applying a host has done, or would do with dryRun. REFUSED: nothing, because of an error.",
)


@strawberry.type(description="What became of one of the hosts to apply.")
class AppliedHost:
    name: str = strawberry.field(description="The name of the host.")
    change: HostChange = strawberry.field(description="What was done, or would be done with dryRun.")  # type: ignore[valid-type]
    difference: str = strawberry.field(description="What an update changes; a config is only named.")
    result: ApplyHostResult | None = strawberry.field(
        description="The host, or why it was refused; null for one that would be created."
    )

    @classmethod
    def of(cls, applied: Applied) -> Self:
        result: Any = applied.result
        if isinstance(result, errors.UserError):
            result = as_type(result)
        elif result is not None:
            result = ExecutorHost.of(result)
        return cls(name=applied.name, change=applied.change, difference=applied.difference, result=result)


T = TypeVar("T")

COMPLETED_AT_ONCE = 200
"""Results of a batch; a few milliseconds."""


@strawberry.type(description="What a change of all that matches has done.")
class BulkChange:
    matched: int
    changed: int = strawberry.field(description="0 with dryRun. Fewer than matched when some have changed meanwhile.")
    more: bool = strawberry.field(description="More match than one request changes: ask again.")


@strawberry.type
class Mutation:
    # -------------------------------------------------------------- hosts

    @strawberry.mutation(
        permission_classes=[IsAdmin],
        description="Probes it before it answers, so that a host that works is HEALTHY and can be routed to at once.",
    )
    async def create_host(self, info: Info, input: HostInput) -> HostResult:
        return ExecutorHost.of(await info.context.service.hosts.create(given(input), info.context.actor))

    @strawberry.mutation(
        permission_classes=[IsAdmin],
        description="Creates the hosts that do not exist and changes those that differ, by name; fields that are not "
        f"given, or null, stay, and so do other hosts; `config` is merged as by updateHost, and a limit that is null "
        f"is removed. Up to {LARGEST_CHECK} at a time, one result each, in order. With dryRun "
        "it says what it would do.",
    )
    async def apply_hosts(self, info: Info, inputs: list[HostInput], dry_run: bool = False) -> list[AppliedHost]:
        at_most(len(inputs), "inputs", LARGEST_CHECK)
        values = [given(entry) for entry in inputs]
        found = await info.context.service.hosts.apply(values, info.context.actor, dry_run=dry_run)
        return [AppliedHost.of(entry) for entry in found]

    @strawberry.mutation(
        permission_classes=[IsAdmin],
        description="Changes what is given. `config` is merged into the one that the host has: keys that are not given "
        "stay, and null removes a key. Secrets must be given again when the address changes.",
    )
    async def update_host(self, info: Info, id: strawberry.ID, input: HostPatch) -> HostResult:
        pk = ids.to_pk("ExecutorHost", id)
        return ExecutorHost.of(await info.context.service.hosts.update(pk, changes(input), info.context.actor))

    @strawberry.mutation(permission_classes=[IsAdmin], description="It takes no new jobs and finishes those it has.")
    async def drain_host(self, info: Info, id: strawberry.ID) -> HostResult:
        pk = ids.to_pk("ExecutorHost", id)
        return ExecutorHost.of(await info.context.service.hosts.drain(pk, info.context.actor))

    @strawberry.mutation(permission_classes=[IsAdmin], description="It takes jobs again.")
    async def resume_host(self, info: Info, id: strawberry.ID) -> HostResult:
        pk = ids.to_pk("ExecutorHost", id)
        return ExecutorHost.of(await info.context.service.hosts.resume(pk, info.context.actor))

    @strawberry.mutation(permission_classes=[IsAdmin], description="Conflict while it holds jobs.")
    async def delete_host(self, info: Info, id: strawberry.ID) -> HostResult:
        pk = ids.to_pk("ExecutorHost", id)
        return ExecutorHost.of(await info.context.service.hosts.delete(pk, info.context.actor))

    @strawberry.mutation(
        permission_classes=[IsAdmin],
        description="The host will not come back: it becomes inactive, and its jobs run again elsewhere, which nothing "
        "else lets them. Should it come back all the same, what is left of them there is removed, and updateHost with "
        "isActive: true takes it back. Conflict while it is HEALTHY.",
    )
    async def declare_host_lost(self, info: Info, id: strawberry.ID) -> HostResult:
        pk = ids.to_pk("ExecutorHost", id)
        return ExecutorHost.of(await info.context.service.hosts.declare_lost(pk, info.context.actor))

    @strawberry.mutation(
        permission_classes=[IsAdmin],
        description="Probes the hosts (all when none is named) at once and returns what was found.",
    )
    async def check_health(self, info: Info, host_ids: list[strawberry.ID] | None = None) -> list[ExecutorHost]:
        at_most(len(host_ids or []), "hostIds", LARGEST_CHECK)
        pks = None if host_ids is None else [ids.to_pk("ExecutorHost", host, "hostIds") for host in host_ids]
        return [
            ExecutorHost.of(host) for host in await info.context.service.hosts.check_health(pks, info.context.actor)
        ]

    # -------------------------------------------------------------- tokens

    @strawberry.mutation(permission_classes=[IsAdmin], description="The secret is in the answer, and nowhere else.")
    async def create_token(
        self,
        info: Info,
        name: str,
        role: Role,
        expires_in_days: Annotated[
            int | None, strawberry.argument(description=f"1 to {LONGEST_LIFE}; null: it lasts until it is revoked.")
        ] = None,
    ) -> CreateTokenResult:
        spec = read_token({"name": name, "role": role, "expires_in_days": expires_in_days})
        row, secret = await info.context.service.tokens.create(spec, info.context.actor)
        return NewApiToken(token=ApiToken.of(row), secret=secret)

    @strawberry.mutation(
        permission_classes=[IsAdmin], description="It is refused from now on; its connections end within seconds."
    )
    async def revoke_token(self, info: Info, id: strawberry.ID) -> RevokeTokenResult:
        pk = ids.to_pk("ApiToken", id)
        return ApiToken.of(await info.context.service.tokens.revoke(pk, info.context.actor))

    # -------------------------------------------------------------- jobs

    @strawberry.mutation(
        permission_classes=[IsOperator],
        description="Records the job and routes it at once; with no room it stays PENDING and is routed when room "
        "appears.",
    )
    async def submit_job(self, info: Info, input: JobInput) -> SubmitJobResult:
        (answer,) = await info.context.service.jobs.submit([read_job(given(input))], info.context.actor)
        return _submitted(answer)

    @strawberry.mutation(
        permission_classes=[IsOperator],
        description=f"Up to {LARGEST_BATCH} at a time, one result each, in order, in one transaction.",
    )
    async def submit_jobs(self, info: Info, inputs: list[JobInput]) -> list[SubmitJobResult]:
        read = await read_jobs(inputs, "inputs")
        specs = [entry for entry in read if isinstance(entry, JobSpec)]
        answers = iter(await info.context.service.jobs.submit(specs, info.context.actor) if specs else [])
        results = (_submitted(next(answers) if isinstance(entry, JobSpec) else entry) for entry in read)
        return _completed(results, len(read))

    @strawberry.mutation(
        permission_classes=[IsOperator], description="Routes a PENDING job now. Anything but PENDING is a Conflict."
    )
    async def route_job(self, info: Info, id: strawberry.ID) -> RouteJobResult:
        return next(await _route([ids.to_pk("ContainerJob", id)], info))

    @strawberry.mutation(
        permission_classes=[IsOperator], description="Routes PENDING jobs now, in one transaction; one result each."
    )
    async def route_jobs(
        self, info: Info, ids_: Annotated[list[strawberry.ID], strawberry.argument(name="ids")]
    ) -> list[RouteJobResult]:
        at_most(len(ids_), "ids")
        return _completed(await _route([ids.to_pk("ContainerJob", job, "ids") for job in ids_], info), len(ids_))

    @strawberry.mutation(
        permission_classes=[IsOperator],
        description="A job that has a container is CANCELLED once that is gone. Conflict when it has ended.",
    )
    async def cancel_job(self, info: Info, id: strawberry.ID) -> JobResult:
        return ContainerJob.of(
            await info.context.service.jobs.cancel(ids.to_pk("ContainerJob", id), info.context.actor)
        )

    @strawberry.mutation(
        permission_classes=[IsOperator],
        description="A new attempt of a job that ended without success, routed at once; anything else is a Conflict.",
    )
    async def retry_job(self, info: Info, id: strawberry.ID) -> JobResult:
        return ContainerJob.of(await info.context.service.jobs.retry(ids.to_pk("ContainerJob", id), info.context.actor))

    @strawberry.mutation(
        permission_classes=[IsOperator],
        description="Cancels the jobs that match and have not ended, the oldest first, at most "
        f"{MOST_AT_ONCE} at a time. Ask with dryRun first.",
    )
    async def cancel_jobs(self, info: Info, filters: JobFilter, dry_run: bool = False) -> BulkChange:
        change = info.context.service.jobs.cancel_all
        return await _change_jobs(info, filters, set(JobStatus) - lifecycle.TERMINAL, change, dry_run=dry_run)

    @strawberry.mutation(
        permission_classes=[IsOperator],
        description="Opens another attempt of the jobs that match and have ended without success, the oldest first, at "
        f"most {MOST_AT_ONCE} at a time. Ask with dryRun first.",
    )
    async def retry_jobs(self, info: Info, filters: JobFilter, dry_run: bool = False) -> BulkChange:
        change = info.context.service.jobs.retry_all
        return await _change_jobs(info, filters, lifecycle.TERMINAL - {JobStatus.SUCCEEDED}, change, dry_run=dry_run)

    @strawberry.mutation(
        permission_classes=[IsAdmin],
        description="Drains the hosts that match and are not drained yet. Ask with dryRun first.",
    )
    async def drain_hosts(self, info: Info, filters: HostFilter, dry_run: bool = False) -> BulkChange:
        where = condition(filters, models.ExecutorHost, info) & Q(is_draining=False)
        return await _change_hosts(info, where, info.context.service.hosts.drain, dry_run=dry_run)

    @strawberry.mutation(
        permission_classes=[IsAdmin], description="Resumes the hosts that match. Ask with dryRun first."
    )
    async def resume_hosts(self, info: Info, filters: HostFilter, dry_run: bool = False) -> BulkChange:
        where = condition(filters, models.ExecutorHost, info)
        return await _change_hosts(info, where, info.context.service.hosts.resume, dry_run=dry_run)


async def _change_jobs(
    info: Info,
    filters: JobFilter,
    statuses: Collection[JobStatus],
    change: Callable[[Sequence[int], Actor], Awaitable[int]],
    *,
    dry_run: bool,
) -> BulkChange:
    where = condition(filters, models.ContainerJob, info)
    found, more = await info.context.service.jobs.matching(where, statuses)
    changed = 0 if dry_run else await change(found, info.context.actor)
    return BulkChange(matched=len(found), changed=changed, more=more)


async def _change_hosts(
    info: Info, where: Q, change: Callable[[int, Actor], Awaitable[object]], *, dry_run: bool
) -> BulkChange:
    hosts = await info.context.service.hosts.matching(where, LARGEST_CHECK + 1, NO_MORE)
    pks = [host.pk for host in hosts[:LARGEST_CHECK]]
    changed = 0 if dry_run else sum(await asyncio.gather(*(_changes(change, pk, info) for pk in pks)))
    return BulkChange(matched=len(pks), changed=changed, more=len(hosts) > LARGEST_CHECK)


async def _changes(change: Callable[[int, Actor], Awaitable[object]], pk: int, info: Info) -> bool:
    """Whether a host was changed, and not deleted meanwhile."""
    try:
        await change(pk, info.context.actor)
    except errors.NotFound:
        return False
    return True


def _completed(results: Iterable[T], count: int) -> list[T]:
    # graphql-core takes both for a list.
    return list(results) if count <= COMPLETED_AT_ONCE else _with_pauses(results)  # type: ignore[return-value]


async def _with_pauses(results: Iterable[T]) -> AsyncIterator[T]:
    """A long list whose completion lets other requests run in between."""
    for at, result in enumerate(results):
        if at % COMPLETED_AT_ONCE == 0:
            await asyncio.sleep(0)
        yield result


def _submitted(answer: models.ContainerJob | errors.UserError) -> ContainerJob | ValidationFailed | Conflict:
    if isinstance(answer, models.ContainerJob):
        return ContainerJob.of(answer)
    refusal: ValidationFailed | Conflict = as_type(answer)
    return refusal


async def _route(pks: list[int], info: Info) -> Iterator[RoutingDecision | RoutingRefused | NotFound | Conflict]:
    answers = await info.context.service.jobs.route(pks, info.context.actor)
    recorded = await info.context.service.decisions.of_jobs(pks)
    return (
        as_type(answer) if isinstance(answer, errors.UserError) else _routed(answer, recorded[pk])
        for pk, answer in zip(pks, answers, strict=True)
    )


def _routed(answer: Decision, recorded: list[models.RoutingDecision]) -> RoutingDecision | RoutingRefused:
    if answer.host is not None:
        return RoutingDecision.of(recorded[0])
    return RoutingRefused.by(answer)
