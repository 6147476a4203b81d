"""Jobs, their attempts and the decisions on them."""

from datetime import datetime
from itertools import chain
from typing import Annotated, Self

import strawberry
from graphql import GraphQLError
from strawberry.scalars import JSON

from container_manager import clock, models
from container_manager.domain.kinds import ExecutorType
from container_manager.domain.lifecycle import JobStatus
from container_manager.domain.outcome import FailureReason
from container_manager.store.attempts import latest
from container_manager.store.hosts import NO_MORE
from graphql_api.context import Info
from graphql_api.enums import Replay, Strategy, Verdict
from graphql_api.ids import from_cursor, page_size, to_global
from graphql_api.operation import current
from graphql_api.types.hosts import ExecutorHost, host
from graphql_api.types.labels import Label, labels_of
from graphql_api.types.logs import LogConnection, log_cursor, log_page
from graphql_api.types.pages import Connection, Node
from graphql_api.types.results import RejectionCount, RoutingRefused, rejection_counts
from graphql_api.types.timeline import TimelineEntry, timeline
from graphql_api.types.verdicts import HostVerdict, host_verdicts

TEXTS = ("command", "entryPoint", "environmentNames")
"""Fields that are read only for documents that mention one, because they may be long."""

MAPPINGS = ("labels", "hostSelector", "tmpfs")


def shows_texts() -> bool:
    """Whether this operation may show one of TEXTS."""
    return current().mentions(TEXTS) > 0


def _count(job: models.ContainerJob) -> None:
    """Count what was read of a job, and the labels that are shown of it; the resolvers of texts count those."""
    operation = current()
    if operation.mentions(TEXTS):
        operation.spend(read=sum(map(len, chain(job.command, job.entry_point, job.environment_names))))
    if times := operation.mentions(MAPPINGS):
        entries = chain(job.labels.items(), job.host_selector.items())
        size = sum(len(name) + len(value) for name, value in entries) + sum(map(len, job.tmpfs))
        operation.spend(characters=times * size)


def _shown(texts: list[str]) -> list[str]:
    current().spend(characters=sum(map(len, texts)))
    return texts


@strawberry.type(description="A file system in memory that is mounted into a container.")
class Tmpfs:
    path: str = strawberry.field(description="Where it is mounted.")
    size_mb: int = strawberry.field(description="MiB that it can hold.")


@strawberry.type
class ContainerJob(Node):
    name: str
    labels: JSON
    image: str
    memory_limit_mb: int | None
    cpu_limit: float | None
    timeout_seconds: int
    priority: int
    preferred_executor: ExecutorType | None
    executor_required: bool = strawberry.field(
        description="True: only preferredExecutor. False: that first, then any other kind."
    )
    region_preference: str
    region_required: bool = strawberry.field(
        description="True: only hosts of regionPreference. False: those first, then any other region."
    )
    host_selector: JSON = strawberry.field(description="Labels that a host must carry.")
    working_dir: str
    user: str
    network: str
    read_only_root: bool
    shm_size_mb: int | None
    tmpfs: JSON = strawberry.field(description="MiB by path.")
    strategy: Strategy
    status: JobStatus
    executor_type: ExecutorType | None
    routing_reason: str
    execution_id: str
    exit_code: int | None
    error: str
    failure: FailureReason | None = strawberry.field(
        description="Why it failed; null while it has not ended, and when it succeeded or was cancelled."
    )
    message: str = strawberry.field(
        description="What is going on now, while a step takes long, like the pull of its image."
    )
    attempt: int = strawberry.field(
        description="1 for the first. A terminal state is final for its attempt; only a retry opens the next."
    )
    max_attempts: int
    submitted_by: str = strawberry.field(description="The name of the token.")
    cancelled_by: str = strawberry.field(description='The name of the token; "" when no client has cancelled it.')
    submitted_at: datetime
    queued_at: datetime | None = strawberry.field(description="Since when the latest attempt waits for a host.")
    routed_at: datetime | None = strawberry.field(description="When the latest attempt got its host.")
    launched_at: datetime | None = strawberry.field(description="When the latest attempt had a container.")
    queue_timeout_seconds: int | None
    not_before: datetime | None = strawberry.field(description="Not routed before this time: the back-off of a retry.")
    cancel_requested_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    row: strawberry.Private[models.ContainerJob]

    @strawberry.field(description="The same as `labels`, by name.")
    def label_list(self) -> list[Label]:
        return labels_of(self.row.labels)

    @strawberry.field(description="The same as `hostSelector`, by name.")
    def host_selector_list(self) -> list[Label]:
        return labels_of(self.row.host_selector)

    @strawberry.field(description="The same as `tmpfs`, by path.")
    def tmpfs_list(self) -> list[Tmpfs]:
        return [Tmpfs(path=path, size_mb=size) for path, size in sorted(self.row.tmpfs.items())]

    @strawberry.field(description="How long the latest attempt has waited for a host, or had waited when it got one.")
    def queued_seconds(self) -> float | None:
        return _seconds(self.row.queued_at, self.row.routed_at or self.row.finished_at)

    @strawberry.field(description="How long the latest attempt has run, or had run when it ended.")
    def run_seconds(self) -> float | None:
        return _seconds(self.row.started_at, self.row.finished_at)

    @strawberry.field(description="What happened to all attempts, oldest first.")
    async def timeline(self, info: Info) -> list[TimelineEntry]:
        past = await info.context.attempts.load(self.row.pk)
        current().spend(records=len(past) + 1)
        here = await info.context.hosts.load((self.row.host_id, NO_MORE)) if self.row.host_id else None
        return timeline(self.row, [*past, latest(self.row, here)])

    @strawberry.field
    def command(self) -> list[str]:
        return _shown(self.row.command)

    @strawberry.field
    def entry_point(self) -> list[str]:
        return _shown(self.row.entry_point)

    @strawberry.field(description="Names only; values may be secret.")
    def environment_names(self) -> list[str]:
        return _shown(self.row.environment_names)

    @strawberry.field(
        description="Why it waits, while PENDING after a refusal; always the latest one. Jobs of equal requirements "
        "wait for the same: a new refusal is recorded, with its event, for the oldest of them."
    )
    async def waiting_on(self, info: Info) -> RoutingRefused | None:
        if self.row.status != JobStatus.PENDING or (self.row.not_before and self.row.not_before > clock.now()):
            return None
        refusal = await info.context.refusals.load(self.row.class_key)
        if refusal is None:
            return None
        return RoutingRefused(
            message=refusal.message,
            verdict=Verdict[refusal.verdict],
            rejections=rejection_counts(refusal.rejections),
            requirements=self.row.requirements(),
        )

    @strawberry.field(description="The host on which room is reserved for this job, because it has waited longest.")
    async def reserved_host(self, info: Info) -> ExecutorHost | None:
        return await host(info, self.row.reserved_host_id)

    @strawberry.field
    async def host(self, info: Info) -> ExecutorHost | None:
        return await host(info, self.row.host_id)

    @strawberry.field(description="Newest first.")
    async def decisions(
        self, info: Info
    ) -> list[Annotated["RoutingDecision", strawberry.lazy("graphql_api.types.jobs")]]:
        rows = await info.context.decisions_of_job.load(self.row.pk)
        current().spend(records=len(rows))
        return [RoutingDecision.of(row) for row in rows]

    @strawberry.field(
        description="What its ended attempts wrote, oldest first; kept after the containers are gone. "
        "Subscription.jobLogs has also what is being written."
    )
    async def logs(self, info: Info, after: str | None = None, first: int | None = None) -> LogConnection:
        return await log_page(info, self.row.pk, log_cursor(after), page_size(first, 1000))

    @strawberry.field(description="All attempts, oldest first; the last one is the job's own state.")
    async def attempts(self, info: Info) -> list[Annotated["JobAttempt", strawberry.lazy("graphql_api.types.jobs")]]:
        past = await info.context.attempts.load(self.row.pk)
        current().spend(records=len(past) + 1)
        here = await info.context.hosts.load((self.row.host_id, NO_MORE)) if self.row.host_id else None
        return [JobAttempt.of(row) for row in (*past, latest(self.row, here))]

    @classmethod
    def of(cls, job: models.ContainerJob) -> Self:
        _count(job)
        return cls(
            id=strawberry.ID(to_global("ContainerJob", job.pk)),
            name=job.name,
            labels=JSON(job.labels),
            image=job.image,
            memory_limit_mb=job.memory_limit,
            cpu_limit=job.cpu_limit,
            timeout_seconds=job.timeout_seconds,
            priority=job.priority,
            preferred_executor=_executor_type(job.preferred_executor),
            executor_required=job.executor_required,
            region_preference=job.region_preference,
            region_required=job.region_required,
            host_selector=JSON(job.host_selector),
            working_dir=job.working_dir,
            user=job.user,
            network=job.network,
            read_only_root=job.read_only_root,
            shm_size_mb=job.shm_size_mb,
            tmpfs=JSON(job.tmpfs),
            strategy=Strategy(job.strategy),
            status=JobStatus(job.status),
            executor_type=_executor_type(job.executor_type),
            routing_reason=job.routing_reason,
            execution_id=job.execution_id,
            exit_code=job.exit_code,
            error=job.error,
            failure=_failure(job.failure),
            message=job.message,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            submitted_by=job.submitted_by,
            cancelled_by=job.cancelled_by,
            submitted_at=job.submitted_at,
            queued_at=job.queued_at,
            routed_at=job.routed_at,
            launched_at=job.launched_at,
            queue_timeout_seconds=job.queue_timeout_seconds,
            not_before=job.not_before,
            cancel_requested_at=job.cancel_requested_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            row=job,
        )


@strawberry.type(description="One run of a job, or one try to get it to run.")
class JobAttempt(Node):
    attempt: int
    status: JobStatus
    host_name: str = strawberry.field(description="The name stays when the host has been deleted.")
    executor_type: ExecutorType | None
    execution_id: str
    exit_code: int | None
    error: str
    failure: FailureReason | None
    cancelled_by: str
    queued_at: datetime | None
    routed_at: datetime | None
    launched_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    row: strawberry.Private[models.JobAttempt]

    @strawberry.field(description="Null before it is routed, and once the host has been deleted.")
    async def host(self, info: Info) -> ExecutorHost | None:
        return await host(info, self.row.host_id)

    @strawberry.field(description="The decision that sent it to its host.")
    async def decision(
        self, info: Info
    ) -> Annotated["RoutingDecision", strawberry.lazy("graphql_api.types.jobs")] | None:
        for row in await info.context.decisions_of_job.load(self.row.job_id):
            if row.attempt == self.row.attempt and row.host_id is not None:
                return RoutingDecision.of(row)
        return None

    @classmethod
    def of(cls, row: models.JobAttempt) -> Self:
        return cls(
            # The latest attempt has no row of its own.
            id=strawberry.ID(to_global("JobAttempt", row.job_id, row.attempt)),
            attempt=row.attempt,
            status=JobStatus(row.status),
            host_name=row.host_name,
            executor_type=_executor_type(row.executor_type),
            execution_id=row.execution_id,
            exit_code=row.exit_code,
            error=row.error,
            failure=_failure(row.failure),
            cancelled_by=row.cancelled_by,
            queued_at=row.queued_at,
            routed_at=row.routed_at,
            launched_at=row.launched_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            row=row,
        )


@strawberry.type
class RoutingDecision(Node):
    attempt: int
    executor_type: ExecutorType | None
    strategy: Strategy
    reason: str
    decided_at: datetime
    rejections: list[RejectionCount] = strawberry.field(description="Of a refusal: how many hosts failed each check.")
    row: strawberry.Private[models.RoutingDecision]

    @strawberry.field
    async def job(self, info: Info) -> ContainerJob:
        found = await job(info, self.row.job_id)
        if found is None:
            # Both are deleted together, but they are read one after the other.
            raise GraphQLError("The job has been deleted.", extensions={"code": "NOT_FOUND"})
        return found

    @strawberry.field(description="Null for a refusal, and once the host has been deleted.")
    async def host(self, info: Info) -> ExecutorHost | None:
        return await host(info, self.row.host_id)

    @strawberry.field(
        description="Every host that was looked at, with every check; the same answer months later. The chosen "
        "one first."
    )
    async def hosts(self, info: Info, first: int | None = None, after: str | None = None) -> Connection[HostVerdict]:
        start, limit = from_cursor(after) or 0, page_size(first)
        recorded = await info.context.evaluations.load(self.row.evaluation_id)
        return await host_verdicts(info, recorded.evaluation if recorded else None, self.row.host_id, start, limit)

    @strawberry.field(description="Decides again from what was recorded.")
    async def replay(self, info: Info) -> Replay:
        recorded = await info.context.evaluations.load(self.row.evaluation_id)
        return Replay(await info.context.service.decisions.replay(self.row, recorded))

    @classmethod
    def of(cls, decision: models.RoutingDecision) -> Self:
        return cls(
            id=strawberry.ID(to_global("RoutingDecision", decision.pk)),
            attempt=decision.attempt,
            executor_type=_executor_type(decision.executor_type),
            strategy=Strategy(decision.strategy),
            reason=decision.reason,
            decided_at=decision.decided_at,
            rejections=rejection_counts(decision.rejections or ()),
            row=decision,
        )


async def job(info: Info, pk: int | None) -> ContainerJob | None:
    """The job with this primary key, in one query with others of the same request."""
    row = await info.context.jobs.load((pk, shows_texts())) if pk else None
    return ContainerJob.of(row) if row else None


async def decision(info: Info, pk: int | None) -> RoutingDecision | None:
    """The decision with this primary key, in one query with others of the same request."""
    row = await info.context.decisions.load(pk) if pk else None
    return RoutingDecision.of(row) if row else None


async def attempt(info: Info, pk: int, number: int) -> JobAttempt | None:
    """An attempt of a job."""
    row = await job(info, pk)
    found = await row.attempts(info) if row is not None else []
    return next((entry for entry in found if entry.attempt == number), None)


def _executor_type(value: str) -> ExecutorType | None:
    return ExecutorType(value) if value else None


def _failure(value: str) -> FailureReason | None:
    return FailureReason(value) if value else None


def _seconds(since: datetime | None, until: datetime | None) -> float | None:
    return None if since is None else ((until or clock.now()) - since).total_seconds()
