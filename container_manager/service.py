"""What the API and the command line may call; the composition root of a running process."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.utils import timezone

from container_manager import crypto, following, metrics, tracing
from container_manager.control.dispatcher import Dispatcher
from container_manager.control.health import HealthLoop
from container_manager.control.housekeeping import Housekeeping
from container_manager.control.leader import Leader
from container_manager.control.queue import QueueLoop
from container_manager.control.reconciler import Reconciler
from container_manager.control.supervisor import Loop, Supervisor
from container_manager.errors import Conflict, NotFound, UserError
from container_manager.events import REPAIR_SECONDS, EventLog
from container_manager.executors.configs import keep_secrets, region_of
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import (
    ApiToken,
    ContainerJob,
    EventKind,
    ExecutorHost,
    HealthStatus,
    RoutingDecision,
)
from container_manager.routing.types import Decision
from container_manager.specs import HostSpec, JobSpec, read_config, read_host
from container_manager.store import attempts, dispatch, leadership, queue, routing, threads, tokens
from container_manager.store import decisions as decision_store
from container_manager.store import events as event_store
from container_manager.store import hosts as host_store
from container_manager.store import jobs as job_store
from container_manager.store.attempts import LogCursor, LogLine
from container_manager.store.decisions import HostVerdict
from container_manager.store.hosts import HealthReport, HostChange
from container_manager.store.installation import identify
from container_manager.store.transaction import Actor, Fact, note
from container_manager.store.writer import Writer

logger = logging.getLogger(__name__)

COMPLETE_WITHIN_SECONDS = 3.0
SAMPLE_SECONDS = 0.5
PLACE = ("url", "node", "project", "region", "endpoint")
"""The keys of a config that say where executions are."""

DRAINED = {"is_draining": True}
# Resumed by hand, a host is also given another chance after launches that failed or a quota that was used up.
RESUMED = {
    "is_draining": False, "launch_failures": 0, "ejections": 0, "ejected_until": None,
    "launch_error": "", "cooldowns": 0, "cooldown_until": None,
}  # fmt: skip
TOUCH_EVERY = timedelta(minutes=1)
PLANNER = Actor("plan")


class Service:
    """One process: its writer, its event tail, its executors and, unless it only serves, its control loops."""

    def __init__(self, instance: str, *, works: bool = True) -> None:
        environment = settings.CONTAINER_MANAGER
        self.writer = Writer()
        self.factory = ExecutorFactory(self.writer.write, instance)
        self.events = EventLog(environment.listen_url or event_store.address())
        # Whoever runs no jobs touches no node's own engines either.
        self._nodes = {"", environment.node} if works else {""}
        self.supervisor = Supervisor(self._loops() if works else [])
        self._is_stopping = False
        self.writer.on_commit(self._heard)

    def _loops(self) -> list[Loop]:
        environment = settings.CONTAINER_MANAGER
        node, writer, factory = environment.node, self.writer, self.factory
        queue_loop = QueueLoop(writer)
        dispatcher = Dispatcher(writer, factory, node, environment.lease_seconds)
        leader = Leader(writer, node, environment.lease_seconds)
        reconciler = Reconciler(writer, factory, leader, environment.orphan_grace_seconds)
        # Where there may be other processes, what they commit is as good a reason to wake.
        tell = self.events.on_read if environment.is_postgresql else writer.on_commit
        health = HealthLoop(writer, factory, leader, environment.probe_interval_seconds)
        for heard in (queue_loop.heard, dispatcher.heard, health.heard, reconciler.heard):
            tell(heard)
        kept = (timedelta(days=days) for days in (environment.evaluation_days, environment.event_days))
        return [
            queue_loop,
            dispatcher,
            leader,
            health,
            reconciler,
            Housekeeping(writer, leader, *kept),
        ]

    async def start(self) -> None:
        await self.writer.start()
        await self.events.start()
        if connection.vendor == "sqlite":
            # One process has this database, and it has just begun: whoever held a lease is gone.
            await self.writer.write(dispatch.release, "")
            await self.writer.write(leadership.resign, "")
        await self.supervisor.start()
        self._sampling = asyncio.create_task(_sample_loop_lag(), name="loop lag")

    async def drain(self, seconds: float) -> None:
        """Be not ready for `seconds`, so that requests are sent elsewhere; then complete the subscriptions.

        Their clients hear an end, and not a broken connection.

        Raises:
            TimeoutError: some subscriptions did not complete.
        """
        self._is_stopping = True
        await asyncio.sleep(seconds)
        self.events.drain()
        async with asyncio.timeout(COMPLETE_WITHIN_SECONDS):
            await self.events.drained()

    async def stop(self) -> None:
        self._sampling.cancel()
        await self.supervisor.stop()
        await self.events.stop()
        await self.writer.stop()
        await self.factory.aclose()

    async def failing(self) -> list[str]:
        """What keeps this process from being ready, in sentences."""
        problems = [f"The {name} loop has not ticked lately." for name in self.supervisor.stalled()]
        if self._is_stopping:
            problems.append("The service is stopping.")
        if time.monotonic() - self.events.read_at > 3 * REPAIR_SECONDS:
            problems.append("The event log has not been read lately.")
        try:
            async with asyncio.timeout(2):
                await threads.read(host_store.any_exist)
        except Exception as error:  # noqa: BLE001 - whatever it is, the database does not answer
            logger.warning("readiness: %r", error)
            problems.append("The database does not answer.")
        return problems

    def _heard(self, events: Sequence[Fact]) -> None:
        if events:
            self.events.wake()

    # -------------------------------------------------------------- hosts

    async def create_host(self, values: Mapping[str, Any], actor: Actor) -> ExecutorHost:
        """Probe the host, then keep it with what was found.

        Raises:
            ValidationFailed, Conflict
        """
        spec = read_host(values)
        fields = _host_fields(spec, spec.model_fields_set)
        read_config(fields["executor_type"], spec.config)
        fields |= await self._probed(ExecutorHost(**fields))
        message = f"Host {{}} was created, {fields.get('health_status', HealthStatus.UNKNOWN)}."
        return await self._save(HostChange(None, fields, actor, "createHost", EventKind.HOST_CREATED, message))

    async def probe_host(self, values: Mapping[str, Any]) -> HealthReport:
        """Probe a host that is not kept."""
        spec = read_host(values)
        return await self.factory.probe(ExecutorHost(**_host_fields(spec, spec.model_fields_set)))

    async def update_host(self, host_id: int, values: Mapping[str, Any], actor: Actor) -> ExecutorHost:
        """Change a host; with a new config it is probed first.

        Raises:
            ValidationFailed, NotFound, Conflict
        """
        spec = read_host(values)
        fields = _host_fields(spec, spec.model_fields_set)
        host = await self._host(host_id)
        moves = False
        if "config" in fields:
            fields["config"] = keep_secrets(fields["config"], host.config)
            moves = any(fields["config"].get(key) != host.config.get(key) for key in PLACE)
            read_config(host.executor_type, fields["config"])
            if host.region == region_of(host.executor_type, host.config):
                # It was not given, but taken from the config.
                fields.setdefault("region", region_of(host.executor_type, fields["config"]))
            for name, value in fields.items():
                setattr(host, name, value)
            host.pk = None
            host.health_status = HealthStatus.UNKNOWN
            fields |= await self._probed(host)
        saved = await self._save(HostChange(host_id, fields, actor, moves=moves))
        if fields.keys() & host_store.EXECUTOR_FIELDS:
            # What is under way on the old executor breaks off, and is taken up on the new one.
            self.factory.invalidate_executor_cache(saved)
        return saved

    async def set_draining(self, host_id: int, draining: bool, actor: Actor) -> ExecutorHost:
        """Take no new jobs, or take them again."""
        if draining:
            change = HostChange(
                host_id, DRAINED, actor, "drainHost", EventKind.HOST_DRAINED, "Host {} takes no new jobs."
            )
        else:
            change = HostChange(
                host_id, RESUMED, actor, "resumeHost", EventKind.HOST_RESUMED, "Host {} takes jobs again."
            )
        return await self._save(change)

    async def delete_host(self, host_id: int, actor: Actor) -> ExecutorHost:
        """Raises Conflict while the host holds jobs."""
        host: ExecutorHost = await self.writer.write(host_store.delete_hosts, (host_id, actor))
        self.factory.invalidate_executor_cache(host)
        return host

    async def declare_lost(self, host_id: int, actor: Actor) -> ExecutorHost:
        """The host will not come back: its jobs run again elsewhere.

        Raises:
            NotFound; Conflict when it answers its health checks.
        """
        host: ExecutorHost = await self.writer.write(attempts.declare_lost, (host_id, actor))
        return host

    async def check_health(self, host_ids: Sequence[int] | None, actor: Actor) -> list[ExecutorHost]:
        """Probe the hosts this node can reach, all when none is named, and return them as found."""
        where = Q() if host_ids is None else Q(pk__in=host_ids)
        hosts = await threads.read(host_store.bare, where)
        reports = await self.factory.check_health([host for host in hosts if host.node in self._nodes])
        await asyncio.gather(*(self.writer.write(host_store.record_health, report) for report in reports.values()))
        await self.writer.write(note, (actor, "checkHealth", f"{len(reports)} hosts"))
        return await threads.read(host_store.matching, where)

    async def _probed(self, host: ExecutorHost) -> dict[str, Any]:
        host.derive()
        if host.node not in self._nodes:
            return {}
        report = await self.factory.probe(host)
        host_store.apply_report(host, report)
        return {name: getattr(host, name) for name in host_store.HEALTH_FIELDS}

    async def _save(self, change: HostChange) -> ExecutorHost:
        host: ExecutorHost = await self.writer.write(host_store.save_hosts, change)
        return host

    async def _host(self, host_id: int) -> ExecutorHost:
        found = await threads.read(host_store.by_ids, [host_id])
        if host_id not in found:
            raise NotFound("There is no such host.")
        return found[host_id]

    # -------------------------------------------------------------- jobs

    async def submit(self, specs: Sequence[JobSpec], actor: Actor) -> list[ContainerJob | Conflict]:
        """Record the jobs and route them, in one transaction; one answer each, in order."""
        submission = job_store.Submission(
            [_job(spec, actor) for spec in specs], actor, "submitJob" if len(specs) == 1 else "submitJobs"
        )
        answers: list[ContainerJob | Conflict] = await self.writer.write(job_store.submit, submission)
        return answers

    async def route(self, job_ids: Sequence[int], actor: Actor) -> list[Decision | UserError]:
        """Route PENDING jobs now; one answer each, in order."""
        answers: list[Decision | UserError] = await self.writer.write(routing.route_named, (job_ids, actor))
        return answers

    async def plan(self, specs: Sequence[JobSpec], assumed: Mapping[int, Mapping[str, Any]]) -> list[Decision]:
        """Where these jobs would go, on the fleet as it is but for what is assumed of hosts, by id; writes nothing.

        Raises:
            NotFound: something is assumed of a host that does not exist.
        """
        return await threads.read(_plan, [_job(spec, PLANNER) for spec in specs], assumed)

    async def why_not(self, job_id: int, host_id: int) -> HostVerdict | None:
        """Every check of this host for this job, now; None when either does not exist."""
        return await threads.read(_why_not, job_id, host_id)

    async def cancel(self, job_id: int, actor: Actor) -> ContainerJob:
        """Raises NotFound, and Conflict when the job has ended."""
        job: ContainerJob = await self.writer.write(job_store.cancel, (job_id, actor))
        return job

    async def retry(self, job_id: int, actor: Actor) -> ContainerJob:
        """Open another attempt. Raises NotFound, and Conflict unless the job has ended without success."""
        job: ContainerJob = await self.writer.write(job_store.retry, (job_id, actor))
        return job

    def follow(self, job_id: int, after: LogCursor | None) -> AsyncGenerator[LogLine, None]:
        """What the job writes beyond `after`, until it has ended. Raises NotFound at the first line."""
        return following.follow(self.events, self.factory, self._nodes, job_id, after)

    async def decisions_of(self, job_ids: Iterable[int]) -> Mapping[int, list[RoutingDecision]]:
        """The decisions of each job, newest first."""
        return await threads.read(decision_store.of_jobs, job_ids)

    # -------------------------------------------------------------- tokens

    async def authenticate(self, secrets: Sequence[str]) -> list[ApiToken | None]:
        """The token of each secret, or None. Records its use, at most once a minute."""
        found = await threads.read(tokens.find, set(secrets))
        since = timezone.now() - TOUCH_EVERY
        stale = [token.pk for token in found.values() if token.last_used_at is None or token.last_used_at < since]
        await asyncio.gather(*(self.writer.write(tokens.touch, pk) for pk in stale))
        return [found.get(secret) for secret in secrets]


async def _sample_loop_lag() -> None:
    while True:
        due = time.perf_counter() + SAMPLE_SECONDS
        await asyncio.sleep(SAMPLE_SECONDS)
        metrics.LOOP_LAG_SECONDS.observe(max(time.perf_counter() - due, 0))


def _host_fields(spec: HostSpec, given: Iterable[str]) -> dict[str, Any]:
    values = spec.model_dump(include=set(given))
    if "executor_type" in values:
        values["executor_type"] = str(values["executor_type"])
    return values


def _job(spec: JobSpec, actor: Actor) -> ContainerJob:
    environment = settings.CONTAINER_MANAGER
    variables = {variable.name: variable.value for variable in spec.environment}
    key = spec.idempotency_key
    return ContainerJob.of(
        {
            "name": spec.name,
            "labels": spec.labels,
            "image": spec.image,
            "entry_point": spec.entry_point,
            "command": spec.command,
            "working_dir": spec.working_dir,
            "user": spec.user,
            "network": spec.network,
            "read_only_root": spec.read_only_root,
            "tmpfs": {mount.path: mount.size_mb for mount in spec.tmpfs},
            "environment": variables,
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
            "idempotency_key": crypto.keyed_hash(str(actor.token_id), key) if key else None,
            "idempotency_input": crypto.keyed_hash(spec.model_dump_json()) if key else "",
            "submitted_at": timezone.now(),
            "trace_parent": tracing.current(),
        }
    )


def _plan(jobs: Sequence[ContainerJob], assumed: Mapping[int, Mapping[str, Any]]) -> list[Decision]:
    hosts = {host.id: host for host in host_store.snapshot()}
    for host_id, changes in assumed.items():
        if host_id not in hosts:
            raise NotFound("assume: there is no such host.")
        hosts[host_id] = hosts[host_id]._replace(**changes)
    return queue.plan(jobs, list(hosts.values()))


def _why_not(job_id: int, host_id: int) -> HostVerdict | None:
    job = job_store.one(job_id)
    return None if job is None else queue.why_not(job, host_id)


@asynccontextmanager
async def running(*, works: bool = True) -> AsyncIterator[Service]:
    """A running service, from its start to its orderly end. Without `works` it runs no jobs."""
    service = Service(await threads.read(identify), works=works)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
