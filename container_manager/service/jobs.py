"""Jobs: submitting, routing, cancelling and retrying them, and reading them with their output."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.db.models import Q

from container_manager import clock, configuration, crypto
from container_manager.domain.lifecycle import JobStatus
from container_manager.errors import Conflict, UserError
from container_manager.events import job_output
from container_manager.models import ContainerJob, JobAttempt, QueueRefusal
from container_manager.observability import tracing
from container_manager.process import Process
from container_manager.routing.types import Decision
from container_manager.specs import JobSpec
from container_manager.store import attempts, outputs, paging, pending, scheduling, threads
from container_manager.store import jobs as job_store
from container_manager.store.outputs import LogCursor, LogLine, Wanted
from container_manager.store.paging import Search
from container_manager.store.pending import PendingGroup
from container_manager.store.transaction import Actor, Unit

MOST_AT_ONCE, CHANGED_TOGETHER = 1000, 100
"""Jobs that one request changes by a filter, and that one transaction does."""


class QueueState(NamedTuple):
    """The pending jobs by what they wait for, and how many jobs hold room on a host."""

    groups: list[PendingGroup]
    active: int


class Jobs:
    """The use cases about jobs."""

    def __init__(self, process: Process) -> None:
        self._writer, self._factory, self._nodes, self._events = (
            process.writer, process.factory, process.nodes, process.events,
        )  # fmt: skip

    async def submit(self, specs: Sequence[JobSpec], actor: Actor) -> list[ContainerJob | Conflict]:
        """Save the jobs and route them, in one transaction; one answer each, in order."""
        action = "submitJob" if len(specs) == 1 else "submitJobs"
        submission = job_store.Submission([new_job(spec, actor) for spec in specs], actor, action)
        answers: list[ContainerJob | Conflict] = await self._writer.write_for_client(job_store.submit, submission)
        return answers

    async def route(self, job_ids: Sequence[int], actor: Actor) -> list[Decision | UserError]:
        """Route PENDING jobs now; one answer each, in order."""
        answers: list[Decision | UserError] = await self._writer.write_for_client(
            scheduling.route_named, (job_ids, actor)
        )
        return answers

    async def cancel(self, job_id: int, actor: Actor) -> ContainerJob:
        """Cancel a job.

        Raises:
            NotFound: there is no such job.
            Conflict: the job has ended.
        """
        job: ContainerJob = await self._writer.write_for_client(job_store.cancel, (job_id, actor))
        return job

    async def retry(self, job_id: int, actor: Actor) -> ContainerJob:
        """Open another attempt of a job.

        Raises:
            NotFound: there is no such job.
            Conflict: the job has not ended, or has succeeded.
        """
        job: ContainerJob = await self._writer.write_for_client(job_store.retry, (job_id, actor))
        return job

    async def matching(self, where: Q, statuses: Collection[JobStatus]) -> tuple[list[int], bool]:
        """The ids of the oldest jobs that match and have one of these statuses, and whether there are others.

        At most `MOST_AT_ONCE`.
        """
        search = Search(order=paging.OLDEST_FIRST, indexed=Q(status__in=[str(one) for one in statuses]), rest=where)
        return await threads.read(paging.ids, search, MOST_AT_ONCE, ("environment", *job_store.LONG_TEXTS))

    async def cancel_all(self, job_ids: Sequence[int], actor: Actor) -> int:
        """Cancel jobs; returns how many of them had not ended meanwhile."""
        return await self._change_all(job_store.cancel, job_ids, actor)

    async def retry_all(self, job_ids: Sequence[int], actor: Actor) -> int:
        """Open another attempt of jobs; returns of how many of them it was still possible."""
        return await self._change_all(job_store.retry, job_ids, actor)

    async def _change_all(self, unit: Unit, job_ids: Sequence[int], actor: Actor) -> int:
        done = 0
        for at in range(0, len(job_ids), CHANGED_TOGETHER):
            part = job_ids[at : at + CHANGED_TOGETHER]
            writes = (self._writer.write_for_client(unit, (job_id, actor)) for job_id in part)
            answers = await asyncio.gather(*writes, return_exceptions=True)
            for answer in answers:
                if isinstance(answer, BaseException) and not isinstance(answer, UserError):
                    raise answer
            done += sum(not isinstance(answer, UserError) for answer in answers)
        return done

    # -------------------------------------------------------------- reading

    def follow(self, job_id: int, after: LogCursor | None) -> AsyncGenerator[LogLine, None]:
        """The job's output after a line, live until the job has ended.

        Raises:
            NotFound: there is no such job.
            StoppingError: the service stops first.
        """
        return job_output.follow(self._events, self._factory, self._nodes, job_id, after)

    async def page(
        self, search: Search, after: Sequence[int] | None, limit: int, *, with_texts: bool = True
    ) -> paging.Page:
        """A page of jobs; see `by_ids`. `after`: the values of a key, with times in microseconds since 1970."""
        deferred = ("environment", *(() if with_texts else job_store.LONG_TEXTS))
        return await threads.read(paging.page, search, after, limit, deferred)

    async def count(self, search: Search) -> paging.Count:
        """How many jobs there are, as far as a short search finds them."""
        return await threads.read(paging.count, search)

    async def by_ids(self, ids: Iterable[int], *, with_texts: bool = True) -> dict[int, ContainerJob]:
        """Jobs by id; those that do not exist are left out. Without their texts, commands and the like are not read."""
        return await threads.read(job_store.by_ids, ids, with_texts)

    async def earlier_attempts(self, job_ids: Iterable[int]) -> Mapping[int, list[JobAttempt]]:
        """The attempts of each job before its present one, oldest first."""
        return await threads.read(attempts.of_jobs, job_ids)

    async def outputs(self, wanted: Iterable[Wanted], most: int) -> Mapping[Wanted, list[LogLine]]:
        """Pages of the stored output of jobs.

        Raises:
            TooMuchTextError: together they have more than `most` characters.
        """
        return await threads.read(outputs.pages, wanted, most)

    async def refusals(self, class_keys: Iterable[str]) -> Mapping[str, QueueRefusal]:
        """Why classes of jobs wait, by class key."""
        return await threads.read(pending.refusals, class_keys)

    async def queue(self) -> QueueState:
        """What waits, and how much is active."""
        return QueueState(await threads.read(pending.groups), await threads.read(job_store.count_active))


NAMED = "token"
FIRST_FIELDS = frozenset(
    {
        *("image", "name", "command", "entry_point", "working_dir", "user", "network", "read_only_root", "tmpfs"),
        *("environment", "memory_limit_mb", "cpu_limit", "timeout_seconds", "priority", "preferred_executor"),
        *("executor_required", "region_preference", "region_required", "strategy", "labels", "host_selector"),
        *("queue_timeout_seconds", "max_attempts", "idempotency_key"),
    }
)
"""The fields of the first version that compared inputs; it compared them also when they had their defaults."""


def _as_sent(spec: JobSpec) -> str:
    """The input in a form that stays the same when later versions know more fields."""
    left_out = {
        name
        for name, field in type(spec).model_fields.items()
        if name not in FIRST_FIELDS and getattr(spec, name) == field.get_default(call_default_factory=True)
    }
    return spec.model_dump_json(exclude=left_out)


def new_job(spec: JobSpec, actor: Actor) -> ContainerJob:
    """An unsaved job from a client's input, with the installation's defaults."""
    return ContainerJob.of(job_values(spec, actor))


def keys_of(actor: Actor, key: str) -> list[str]:
    """How the job with an idempotency key of this actor is found."""
    # Named tokens, because a token may be replaced; earlier versions have used its id.
    keys = crypto.keyed_hashes(NAMED, actor.name, key)
    return [*keys, *crypto.keyed_hashes(str(actor.token_id), key)] if actor.token_id else keys


def job_values(spec: JobSpec, actor: Actor) -> dict[str, Any]:
    """The attributes of `new_job`."""
    environment = configuration.current()
    key = spec.idempotency_key
    keys = keys_of(actor, key) if key else []
    inputs = crypto.keyed_hashes(_as_sent(spec)) if key else []
    return {
        "name": spec.name,
        "labels": spec.labels,
        "image": spec.image,
        "entry_point": spec.entry_point,
        "command": spec.command,
        "working_dir": spec.working_dir,
        "user": spec.user,
        "network": spec.network,
        "read_only_root": spec.read_only_root,
        "shm_size_mb": spec.shm_size_mb,
        "tmpfs": {mount.path: mount.size_mb for mount in spec.tmpfs},
        "environment": {variable.name: variable.value for variable in spec.environment},
        "memory_limit": spec.memory_limit_mb or environment.default_memory_mb,
        "cpu_limit": spec.cpu_limit or environment.default_cpu,
        "timeout_seconds": spec.timeout_seconds or environment.default_timeout_seconds,
        "priority": spec.priority,
        "preferred_executor": str(spec.preferred_executor or ""),
        "executor_required": spec.executor_required,
        "region_preference": spec.region_preference,
        "region_required": spec.region_required,
        "host_selector": spec.host_selector,
        "strategy": spec.strategy or environment.default_strategy,
        "queue_timeout_seconds": spec.queue_timeout_seconds,
        "max_attempts": spec.max_attempts,
        "idempotency_key": keys[0] if keys else None,
        "idempotency_keys": keys,
        "idempotency_input": inputs[0] if inputs else "",
        "idempotency_inputs": inputs,
        "submitted_at": clock.now(),
        "submitted_by": actor.name,
        "trace_parent": tracing.current(),
    }
