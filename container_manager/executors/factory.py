"""Routes jobs to hosts, and keeps one executor a host."""

import asyncio
import importlib
import logging
import random
import time
import weakref
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from pydantic import ValidationError

from container_manager.executors.base import ContainerExecutor, ExecutorSettings
from container_manager.executors.configs import config_errors
from container_manager.executors.exceptions import (
    ExecutorConfigurationError,
    ExecutorError,
    ExecutorHostError,
    ExecutorResourceError,
)
from container_manager.models import ContainerJob, ExecutorHost, HealthStatus
from container_manager.routing import checks, router
from container_manager.routing.types import Decision, HostState, JobRequirements
from container_manager.store import hosts as host_store
from container_manager.store import routing, threads
from container_manager.store.hosts import HealthReport
from container_manager.store.reservation import Reservation, reserve
from container_manager.store.transaction import Unit
from container_manager.store.writer import write_directly

logger = logging.getLogger(__name__)

EXECUTORS = {
    "docker": "container_manager.executors.docker.DockerExecutor",
    "cloudrun": "container_manager.executors.cloudrun.CloudRunExecutor",
    "simulated": "container_manager.executors.simulated.SimulatedExecutor",
}

ROOM_CHECKS = ("SLOTS", "MEMORY", "CPU")
PLACE_CHECKS = ("REGION",)
RESERVE_TRIES = 3

R = TypeVar("R")
_Cache = dict[int, tuple[int, ContainerExecutor]]
"""By host: the version of the config it was built from, and the executor."""

_no_loop = type("NoLoop", (), {})()


class ExecutorFactory:
    """Decides where jobs run. Safe to use from many tasks, and from threads that each have a loop of their own.

    `write` commits units of work; a service passes its writer's, so that they join its group commit.
    `instance` is the installation whose containers its executors call their own.
    """

    def __init__(
        self, write: Callable[[Unit, Any], Awaitable[Any]] = write_directly, instance: str = "unnamed"
    ) -> None:
        self._write = write
        self.instance = instance
        # By event loop, because a client's connections belong to the loop in which they were made.
        self._executors: weakref.WeakKeyDictionary[Any, _Cache] = weakref.WeakKeyDictionary()
        self._closing: set[asyncio.Task[None]] = set()

    # -------------------------------------------------------------- routing

    async def route_job_to_host(
        self, job: ContainerJob, *, executor_types: Collection[str] | None = None
    ) -> ExecutorHost | None:
        """Where would this job go? Reserves nothing; None when no host can take it now.

        Args:
            job: need not be saved.
            executor_types: only hosts of these types; None for all.

        Raises:
            ExecutorError, DatabaseError: the hosts could not be read.
        """
        hosts = await self.get_available_hosts(job)
        if executor_types is not None:
            hosts = [host for host in hosts if host.executor_type in executor_types]
        needs = job.requirements()
        best = min((router.tier(host_store.state(host), needs) for host in hosts), default=None)
        tier = [host for host in hosts if router.tier(host_store.state(host), needs) == best]
        return self._choose(tier, needs) if tier else None

    async def route_job_to_executor_type(self, job: ContainerJob) -> str:
        """Route to a host, reserve it, and return its executor type.

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
            if job.pk is not None and not await self._write(reserve, Reservation(job.pk, host.pk, reason)):
                continue  # Somebody took the room in between.
            if job.pk is not None:
                job.status = "routed"
            job.host, job.executor_type, job.routing_reason = host, str(host.executor_type), reason
            logger.info(
                "routing: job %s to host %s (%s): %s", job.pk or job.name, host.name, host.executor_type, reason
            )
            return job.executor_type
        raise ExecutorResourceError(f"No executor is available for this job{_wish(job)}.")

    async def route_jobs(self, jobs: Sequence[ContainerJob]) -> list[Decision]:
        """Decide, reserve and record for saved PENDING jobs in one transaction; one decision each, in order.

        Raises:
            Conflict, NotFound: a job is not PENDING, or is gone; the others are routed all the same.
        """
        answers: list[Decision | Exception] = await self._write(routing.route_named, ([job.pk for job in jobs], None))
        decisions = []
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
            decisions.append(answer)
        return decisions

    async def route_job_dry_run(self, job: ContainerJob) -> str:
        """The executor type that would be used; writes nothing.

        Raises:
            ExecutorResourceError: no executor is available.
        """
        available = await self._available_types(job)
        host = await self.route_job_to_host(job, executor_types=available) if available else None
        if host is None:
            raise ExecutorResourceError(f"No executor is available for this job{_wish(job)}.")
        return str(host.executor_type)

    async def get_available_hosts(self, job: ContainerJob | None = None) -> list[ExecutorHost]:
        """Hosts that could take the job now, by every check; without a job, those with a free slot. One query."""
        hosts = await threads.read(host_store.candidates)
        if job is None:
            return [host for host in hosts if checks.feasible(host_store.state(host), _anything(host))]
        return [
            host
            for host in hosts
            if self._check_resource_availability(host, job)
            and self._matches_geographic_constraints(host, job)
            and self._passes_other_checks(host, job)
        ]

    async def get_executor_capacity(self, executor_type: str) -> dict[str, int]:
        """`total_capacity`, `current_usage` and `available_slots` of a type's active hosts, in jobs."""
        hosts = [host for host in await threads.read(host_store.candidates) if host.executor_type == executor_type]
        free = [max(host.max_concurrent_jobs - host.used_jobs, 0) for host in hosts]
        return {
            "total_capacity": sum(host.max_concurrent_jobs for host in hosts),
            "current_usage": sum(host.used_jobs for host in hosts),
            "available_slots": sum(free),
        }

    # -------------------------------------------------------------- health

    async def check_health(self, hosts: Iterable[ExecutorHost] | None = None) -> dict[int, HealthReport]:
        """Probe hosts at once, each under its own deadline: the slowest costs its deadline and delays nobody."""
        probed = list(hosts) if hosts is not None else await threads.read(host_store.bare, Q())
        reports = await asyncio.gather(*(self.probe(host) for host in probed))
        return {report.host_id: report for report in reports}

    async def probe(self, host: ExecutorHost) -> HealthReport:
        """Probe one host; whatever goes wrong is a report that says so."""
        began = time.perf_counter()
        info: dict[str, Any] = {}
        error = exhausted = ""
        deadline = settings.CONTAINER_MANAGER.probe_timeout_seconds
        executor = None
        try:
            async with asyncio.timeout(deadline):
                executor = self.get_executor(host)
                if await executor.health_check():
                    info = await executor.get_capacity_info()
                else:
                    error = "The executor says that it is not healthy."
        except TimeoutError:
            error = f"No answer within {deadline:g} s."
        except ExecutorResourceError as problem:
            exhausted = str(problem)
        except ExecutorError as problem:
            error = str(problem)
        except Exception as problem:  # a probe must not fail the others, whatever an executor raises
            logger.exception("probe of host %s", host.name)
            error = f"The probe failed: {problem}"
        if host.pk is None and executor is not None:
            await _close(executor)
        return HealthReport(
            host_id=host.pk,
            status=HealthStatus.UNHEALTHY if error else HealthStatus.HEALTHY,
            checked_at=timezone.now(),
            latency_ms=(time.perf_counter() - began) * 1000,
            error=error,
            exhausted=exhausted,
            memory_mb=info.get("memory_mb"),
            cpu_cores=info.get("cpu_cores"),
        )

    async def _is_executor_available(self, executor_type: str) -> bool:
        """Some active host of the type answers and has room, both by the job rows and by the executor."""
        hosts = [
            host
            for host in await threads.read(host_store.candidates)
            if host.executor_type == executor_type and host.used_jobs < host.max_concurrent_jobs and not host.cooling
        ]
        return any(await asyncio.gather(*(self._has_room(host) for host in hosts)))

    async def _has_room(self, host: ExecutorHost) -> bool:
        try:
            async with asyncio.timeout(settings.CONTAINER_MANAGER.probe_timeout_seconds):
                executor = self.get_executor(host)
                if not await executor.health_check():
                    return False
                capacity = await executor.get_capacity_info()
        except (ExecutorError, TimeoutError) as error:
            logger.warning("host %s is not available: %s", host.name, error or "no answer in time")
            return False
        return int(capacity["available_slots"]) > 0

    async def _available_types(self, job: ContainerJob) -> list[str]:
        """The types to choose from: the preferred one if it is available, else all others that are."""
        if job.preferred_executor and await self._is_executor_available(job.preferred_executor):
            return [job.preferred_executor]
        if job.preferred_executor and job.executor_required:
            return []
        types = {str(host.executor_type) for host in await threads.read(host_store.candidates)}
        others = sorted(types - {job.preferred_executor})
        answers = await asyncio.gather(*(self._is_executor_available(executor_type) for executor_type in others))
        return [executor_type for executor_type, available in zip(others, answers, strict=True) if available]

    # -------------------------------------------------------------- the hooks of the single-job methods

    def _check_resource_availability(self, host: ExecutorHost, job: ContainerJob) -> bool:
        return checks.feasible(host_store.state(host), job.requirements(), *ROOM_CHECKS)

    def _matches_geographic_constraints(self, host: ExecutorHost, job: ContainerJob) -> bool:
        return checks.feasible(host_store.state(host), job.requirements(), *PLACE_CHECKS)

    def _passes_other_checks(self, host: ExecutorHost, job: ContainerJob) -> bool:
        others = [check.code for check in checks.CHECKS if check.code not in {*ROOM_CHECKS, *PLACE_CHECKS}]
        return checks.feasible(host_store.state(host), job.requirements(), *others)

    def _choose(self, tier: list[ExecutorHost], needs: JobRequirements) -> ExecutorHost:
        weights = [host.routing_weight for host in tier]
        if needs.strategy == "weighted":
            return random.choices(tier, weights=weights if any(weights) else [1] * len(tier))[0]  # noqa: S311
        states: list[HostState] = [host_store.state(host) for host in tier]
        return tier[router.place(router.evaluate(states, needs, random.getrandbits(32)), 1)[0]]

    # -------------------------------------------------------------- executors

    def get_executor(self, host_or_job: ExecutorHost | ContainerJob) -> ContainerExecutor:
        """The host's executor, one a host and event loop.

        Raises:
            ExecutorConfigurationError: the host's settings are wrong, or the job has no host.
        """
        host = host_or_job.host if isinstance(host_or_job, ContainerJob) else host_or_job
        if host is None:
            raise ExecutorConfigurationError("The job has not been routed to a host.")
        cache = self._executors.setdefault(_current_loop(), {})
        if host.pk is None:
            return self._build(host)
        version, executor = cache.get(host.pk, (-1, None))
        if executor is None or version < host.config_version:
            # An instance read before the last change gets the newer executor, never the other way round.
            self.invalidate_executor_cache(host)
            executor = self._build(host)
            cache[host.pk] = (host.config_version, executor)
        return executor

    def max_launches(self, host: ExecutorHost) -> int:
        """How many launches may be under way at once on this host."""
        try:
            return self.get_executor(host).max_launches
        except ExecutorConfigurationError:
            # The launch itself will tell the job what is wrong with the host.
            return 1

    def invalidate_executor_cache(self, host: ExecutorHost) -> None:
        """Forget the host's executors; the next `get_executor` builds a new one, the old one is closed."""
        for loop, cache in list(self._executors.items()):
            _, executor = cache.pop(host.pk, (0, None))
            if executor is None or loop is _no_loop or loop.is_closed():
                continue
            if loop is _current_loop():
                task = loop.create_task(_close(executor))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            else:
                asyncio.run_coroutine_threadsafe(_close(executor), loop)

    async def aclose(self) -> None:
        """Close the connections of all executors of this event loop."""
        cache = self._executors.pop(_current_loop(), {})
        await asyncio.gather(*(_close(executor) for _, executor in cache.values()), *self._closing)

    def _build(self, host: ExecutorHost) -> ContainerExecutor:
        path = EXECUTORS.get(str(host.executor_type))
        if path is None:
            raise ExecutorHostError(f"Host {host.name}: this version has no executor of type {host.executor_type}.")
        module, _, name = path.rpartition(".")
        configured = settings.CONTAINER_MANAGER
        try:
            executor: ContainerExecutor = getattr(importlib.import_module(module), name)(
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


def _current_loop() -> Any:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return _no_loop


async def _close(executor: ContainerExecutor) -> None:
    try:
        await executor.aclose()
    except Exception as error:  # noqa: BLE001 - one that cannot be closed is forgotten all the same
        logger.warning("closing an executor: %s", error)


def _anything(host: ExecutorHost) -> JobRequirements:
    """The least that a job which wants this host's type can need."""
    return JobRequirements(preferred_executor=str(host.executor_type))


def _wish(job: ContainerJob) -> str:
    return f" (it requires {job.preferred_executor})" if job.executor_required else ""


def _reason(job: ContainerJob, host: ExecutorHost) -> str:
    if job.preferred_executor and host.executor_type == job.preferred_executor:
        return f"Preferred executor {job.preferred_executor} is available: host {host.name}."
    if job.preferred_executor:
        return f"{job.preferred_executor} is not available, so {host.executor_type} instead: host {host.name}."
    return f"Host {host.name} ({host.executor_type}) was chosen among the hosts with room."
