"""The factory: routes jobs to hosts, and gives each host its executor."""

import asyncio
import importlib
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

from django.db.models import Q
from pydantic import ValidationError

from container_manager import configuration
from container_manager.executors import probe
from container_manager.executors.base import ContainerExecutor, ExecutorSettings, LaunchSpec
from container_manager.executors.cache import ExecutorCache
from container_manager.executors.configs import config_errors, packaged
from container_manager.executors.exceptions import (
    ExecutorConfigurationError,
    ExecutorHostError,
    ExecutorResourceError,
)
from container_manager.models import ContainerJob, ExecutorHost
from container_manager.routing import checks, router
from container_manager.routing.types import Decision, JobRequirements
from container_manager.store import hosts as host_store
from container_manager.store import scheduling, threads
from container_manager.store.assignment import Choice, assign_chosen
from container_manager.store.health import HealthReport
from container_manager.store.transaction import Unit
from container_manager.store.writer import write_directly

logger = logging.getLogger(__name__)

EXECUTORS = {
    "docker": "container_manager.executors.docker.DockerExecutor",
    "cloudrun": "container_manager.executors.cloudrun.CloudRunExecutor",
    "simulated": "container_manager.executors.simulated.SimulatedExecutor",
}
"""By executor type, the class, which is looked up in its module at the time of the call."""

ROOM_CHECKS = ("SLOTS", "MEMORY", "CPU")
PLACE_CHECKS = ("REGION",)
RESERVE_TRIES = 3


class ExecutorFactory:
    """Builds the executors of hosts, and decides for Python callers where jobs run.

    Safe to use from many tasks, and from threads that each have an event loop of their own.

    A running service routes by `store.scheduling` and uses the factory for its executors and probes.
    `write` commits units of work; a running service passes its writer's method, so that they join its group commit.
    `instance` is the id of the installation; executors recognise its containers by it.
    """

    def __init__(
        self, write: Callable[[Unit, Any], Awaitable[Any]] = write_directly, instance: str = "unnamed"
    ) -> None:
        self._write = write
        self.instance = instance
        self._cache = ExecutorCache(self._build)

    # -------------------------------------------------------------- routing

    async def route_job_to_host(
        self, job: ContainerJob, *, executor_types: Collection[str] | None = None
    ) -> ExecutorHost | None:
        """The host to which this job would go; None when no host can take it now. Reserves nothing.

        Args:
            job: need not be saved.
            executor_types: consider only hosts of these types; None considers all.

        Raises:
            DatabaseError: the hosts could not be read.
        """
        hosts = await self.get_available_hosts(job)
        if executor_types is not None:
            hosts = [host for host in hosts if host.executor_type in executor_types]
        needs = job.requirements()
        best = min((router.tier(host_store.state(host), needs) for host in hosts), default=None)
        tier = [host for host in hosts if router.tier(host_store.state(host), needs) == best]
        return _choose(tier, needs) if tier else None

    async def route_job_to_executor_type(self, job: ContainerJob) -> str:
        """Route the job to a host, reserve its room there, and return the executor type.

        Writes host, executor_type and routing_reason to the job; a job that is not saved only gets the attributes.

        Raises:
            ExecutorResourceError: no executor is available.
        """
        available = await self._available_types(job)
        for _ in range(RESERVE_TRIES):
            host = await self.route_job_to_host(job, executor_types=available) if available else None
            if host is None:
                break
            reason = _reason(job, host)
            if job.pk is not None and not await self._write(assign_chosen, Choice(job.pk, host.pk, reason)):
                continue  # Another job took the room meanwhile.
            if job.pk is not None:
                job.status = "routed"
            job.host, job.executor_type, job.routing_reason = host, str(host.executor_type), reason
            logger.info(
                "routing: job %s to host %s (%s): %s", job.pk or job.name, host.name, host.executor_type, reason,
                extra={"job": job.pk, "host": host.name},
            )  # fmt: skip
            return job.executor_type
        raise _none_available(job)

    async def route_jobs(self, jobs: Sequence[ContainerJob]) -> list[Decision]:
        """Decide, reserve and record for saved PENDING jobs in one transaction; one decision each, in order.

        Raises:
            Conflict: a job is not PENDING. The others are routed nevertheless.
            NotFound: a job does not exist. The others are routed nevertheless.
        """
        ids = [job.pk for job in jobs]
        answers: list[Decision | Exception] = await self._write(scheduling.route_named, (ids, None))
        decisions = []
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
            decisions.append(answer)
        return decisions

    async def route_job_dry_run(self, job: ContainerJob) -> str:
        """The executor type that would be used. Writes nothing.

        Raises:
            ExecutorResourceError: no executor is available.
        """
        available = await self._available_types(job)
        host = await self.route_job_to_host(job, executor_types=available) if available else None
        if host is None:
            raise _none_available(job)
        return str(host.executor_type)

    async def get_available_hosts(self, job: ContainerJob | None = None) -> list[ExecutorHost]:
        """Hosts that pass every check for the job now; without a job, those with a free slot. One query."""
        hosts = await threads.read(host_store.candidates)
        if job is None:
            return [host for host in hosts if checks.feasible(host_store.state(host), _smallest_job(host))]
        return [
            host
            for host in hosts
            if self._check_resource_availability(host, job)
            and self._matches_geographic_constraints(host, job)
            and _passes_other_checks(host, job)
        ]

    async def get_executor_capacity(self, executor_type: str) -> dict[str, int]:
        """`total_capacity`, `current_usage` and `available_slots` of a type's active hosts, as numbers of jobs."""
        hosts = [host for host in await threads.read(host_store.candidates) if host.executor_type == executor_type]
        free = [max(host.max_concurrent_jobs - host.used_jobs, 0) for host in hosts]
        return {
            "total_capacity": sum(host.max_concurrent_jobs for host in hosts),
            "current_usage": sum(host.used_jobs for host in hosts),
            "available_slots": sum(free),
        }

    # -------------------------------------------------------------- health

    async def check_health(self, hosts: Iterable[ExecutorHost] | None = None) -> dict[int, HealthReport]:
        """Probe hosts concurrently, all when None is given; the reports by host id.

        Each probe has its own deadline, so a host that hangs delays no other.
        """
        probed = list(hosts) if hosts is not None else await threads.read(host_store.bare, Q())
        reports = await asyncio.gather(*(self.probe(host) for host in probed))
        return {report.host_id: report for report in reports}

    async def probe(self, host: ExecutorHost) -> HealthReport:
        """Probe one host. Whatever goes wrong is part of the report; nothing is raised."""
        return await probe.probe(host, self.get_executor)

    async def _is_executor_available(self, executor_type: str) -> bool:
        """Whether some active host of the type answers, and has room by the job rows and by its executor."""
        hosts = [
            host
            for host in await threads.read(host_store.candidates)
            if host.executor_type == executor_type and host.used_jobs < host.max_concurrent_jobs and not host.cooling
        ]
        return any(await asyncio.gather(*(probe.has_room(host, self.get_executor) for host in hosts)))

    async def _available_types(self, job: ContainerJob) -> list[str]:
        """The types to choose from: the preferred one if it is available, otherwise all others that are."""
        if job.preferred_executor and await self._is_executor_available(job.preferred_executor):
            return [job.preferred_executor]
        if job.preferred_executor and job.executor_required:
            return []
        types = {str(host.executor_type) for host in await threads.read(host_store.candidates)}
        others = sorted(types - {job.preferred_executor})
        answers = await asyncio.gather(*(self._is_executor_available(executor_type) for executor_type in others))
        return [executor_type for executor_type, available in zip(others, answers, strict=True) if available]

    # -------------------------------------------------------------- hooks of the single-job methods

    def _check_resource_availability(self, host: ExecutorHost, job: ContainerJob) -> bool:
        return checks.feasible(host_store.state(host), job.requirements(), *ROOM_CHECKS)

    def _matches_geographic_constraints(self, host: ExecutorHost, job: ContainerJob) -> bool:
        return checks.feasible(host_store.state(host), job.requirements(), *PLACE_CHECKS)

    # -------------------------------------------------------------- executors

    def get_executor(self, host_or_job: ExecutorHost | ContainerJob) -> ContainerExecutor:
        """The host's executor, one per host and event loop.

        Raises:
            ExecutorConfigurationError: the host's settings are wrong, or the job has no host.
        """
        host = host_or_job.host if isinstance(host_or_job, ContainerJob) else host_or_job
        if host is None:
            raise ExecutorConfigurationError("The job has not been routed to a host.")
        return self._cache.get(host)

    def max_launches(self, host: ExecutorHost) -> int:
        """How many launches may be in progress at once on this host."""
        try:
            return self.get_executor(host).max_launches
        except ExecutorConfigurationError:
            # The launch itself reports what is wrong with the host.
            return 1

    def launch_spec(self, job: ContainerJob) -> LaunchSpec:
        """What an executor needs to run the job's present attempt."""
        return LaunchSpec(
            job_id=job.pk,
            attempt=job.attempt,
            name=f"cm-{self.instance}-{job.pk}-{job.attempt}",
            image=job.image,
            command=tuple(job.command),
            environment=job.environment,
            memory_mb=job.memory_limit or 0,
            cpu_millis=round((job.cpu_limit or 0) * 1000),
            timeout_seconds=job.timeout_seconds,
            entry_point=tuple(job.entry_point),
            working_dir=job.working_dir,
            user=job.user,
            network=job.network,
            read_only_root=job.read_only_root,
            tmpfs=job.tmpfs,
            shm_mb=job.shm_size_mb or 0,
            priority=job.priority,
        )

    def invalidate_executor_cache(self, host: ExecutorHost) -> None:
        """Forget the host's executors and close their connections; the next `get_executor` builds a new one."""
        self._cache.invalidate(host)

    async def aclose(self) -> None:
        """Close the connections of all executors of this event loop."""
        await self._cache.aclose()

    def _build(self, host: ExecutorHost) -> ContainerExecutor:
        kind = _class_of(str(host.executor_type))
        configured = configuration.current()
        try:
            executor = kind(
                ExecutorSettings(
                    name=host.name,
                    config=host.config,
                    instance=self.instance,
                    max_jobs=host.max_concurrent_jobs,
                    launch_timeout=configured.launch_timeout_seconds,
                    pull_timeout=configured.pull_timeout_seconds,
                    output_limit=configured.log_limit_bytes,
                )
            )
        except ValidationError as error:
            raise ExecutorHostError(" ".join(text for _, text in config_errors(error))) from error
        return executor


def _class_of(executor_type: str) -> type[ContainerExecutor]:
    """Raises ExecutorHostError if there is none."""
    path = EXECUTORS.get(executor_type)
    if path is None:
        return packaged(executor_type)
    module, _, name = path.rpartition(".")
    kind: type[ContainerExecutor] = getattr(importlib.import_module(module), name)
    return kind


def _passes_other_checks(host: ExecutorHost, job: ContainerJob) -> bool:
    others = [check.code for check in checks.CHECKS if check.code not in {*ROOM_CHECKS, *PLACE_CHECKS}]
    return checks.feasible(host_store.state(host), job.requirements(), *others)


def _choose(tier: list[ExecutorHost], needs: JobRequirements) -> ExecutorHost:
    weights = [host.routing_weight for host in tier]
    if needs.strategy == "weighted":
        return random.choices(tier, weights=weights if any(weights) else [1] * len(tier))[0]  # noqa: S311
    states = [host_store.state(host) for host in tier]
    return tier[router.choose(router.evaluate(states, needs, random.getrandbits(32)), 1)[0]]


def _smallest_job(host: ExecutorHost) -> JobRequirements:
    """The least that a job which prefers this host's type can need."""
    return JobRequirements(preferred_executor=str(host.executor_type))


def _none_available(job: ContainerJob) -> ExecutorResourceError:
    required = f" (it requires {job.preferred_executor})" if job.executor_required else ""
    return ExecutorResourceError(f"No executor is available for this job{required}.")


def _reason(job: ContainerJob, host: ExecutorHost) -> str:
    if job.preferred_executor and host.executor_type == job.preferred_executor:
        return f"Preferred executor {job.preferred_executor} is available: host {host.name}."
    if job.preferred_executor:
        return f"{job.preferred_executor} is not available, so {host.executor_type} instead: host {host.name}."
    return f"Host {host.name} ({host.executor_type}) was chosen among the hosts with room."
