"""Hosts: creating, changing, probing and reading them."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from django.db.models import Q

from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import EventKind
from container_manager.errors import NO_HOST, Conflict, FieldError, NotFound, UserError, ValidationFailed
from container_manager.executors.configs import CONFIGS, region_of
from container_manager.executors.secrets import hide_secrets, keep_secrets, merged
from container_manager.models import ExecutorHost
from container_manager.process import Process
from container_manager.routing import checks
from container_manager.routing.types import JobRequirements
from container_manager.specs import HostSpec, read_config, read_host
from container_manager.store import health as health_store
from container_manager.store import host_changes, host_usage, threads
from container_manager.store import hosts as host_store
from container_manager.store.health import HealthReport
from container_manager.store.host_changes import HostChange
from container_manager.store.host_usage import Usage
from container_manager.store.hosts import EVERYTHING, HostKey, HostOrder, HostPage, Shown
from container_manager.store.transaction import Actor, record_audit

PLACE = ("url", "project", "region", "endpoint")
"""The keys of a config that, with the node, say where executions are."""

ADDRESS = ("url", "node", "endpoint", "logging_endpoint")
"""The keys of a config that say where its secrets are sent."""


class Change(StrEnum):
    """What applying a host has done, or would do."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


class Applied(NamedTuple):
    """What became of one of the hosts to apply. `difference`: what an update changes, in words.

    `result`: the host, the error of one that was refused, or None for one that would be created.
    """

    name: str
    change: Change
    difference: str
    result: ExecutorHost | UserError | None


class CapacityGroup(NamedTuple):
    """The hosts of one executor type and region; `available`: how many of them could take a small job now."""

    executor_type: str
    region: str
    hosts: list[ExecutorHost]
    available: int


class Hosts:
    """The use cases about hosts."""

    def __init__(self, process: Process) -> None:
        self._writer, self._factory, self._nodes = process.writer, process.factory, process.nodes

    @property
    def fleet_size(self) -> int:
        """How many hosts there are, as this process has seen them last."""
        return host_store.fleet_size()

    async def create(self, values: Mapping[str, Any], actor: Actor) -> ExecutorHost:
        """Probe the host, then save it with the result.

        Raises:
            ValidationFailed: values are invalid.
            Conflict: a host with this name exists.
        """
        return await self._create(read_new(values), actor)

    async def _create(self, fields: dict[str, Any], actor: Actor) -> ExecutorHost:
        fields |= await self._probed(ExecutorHost(**fields))
        message = f"Host {{}} was created, {fields.get('health_status', HealthStatus.UNKNOWN)}."
        return await self._save(HostChange(None, fields, actor, "createHost", EventKind.HOST_CREATED, message))

    async def probe_unsaved(self, values: Mapping[str, Any]) -> HealthReport:
        """Probe a host without saving it.

        Raises:
            ValidationFailed: values are invalid.
        """
        return await self._factory.probe(ExecutorHost(**_fields(read_host(values))))

    async def update(self, host_id: int, values: Mapping[str, Any], actor: Actor) -> ExecutorHost:
        """Change a host. `config` is merged into the one that it has (RFC 7396), and probed before it is saved.

        Raises:
            ValidationFailed: values are invalid.
            NotFound: there is no such host.
            Conflict: the name exists, or the host holds jobs and the config points to another place.
        """
        host = await self._one(host_id)
        return await self._change(host, _changes(host, _fields(read_host(values))), actor)

    async def _change(self, host: ExecutorHost, fields: dict[str, Any], actor: Actor) -> ExecutorHost:
        """Save `_changes`, after a probe of a new config."""
        host_id, moves = host.pk, False
        if "config" in fields:
            node, moves = host.node, any(fields["config"].get(key) != host.config.get(key) for key in PLACE)
            for name, value in fields.items():
                setattr(host, name, value)
            host.pk = None
            host.health_status = HealthStatus.UNKNOWN
            fields |= await self._probed(host)
            moves = moves or host.node != node
        saved = await self._save(HostChange(host_id, fields, actor, moves=moves))
        if fields.keys() & host_changes.EXECUTOR_FIELDS:
            # Calls in progress on the old executor end with an error and are repeated on the new one.
            self._factory.invalidate_executor_cache(saved)
        return saved

    async def apply(self, inputs: Sequence[Mapping[str, Any]], actor: Actor, *, dry_run: bool) -> list[Applied]:
        """Create the hosts that do not exist and change those that differ from what is given; the others stay.

        A field that is not given stays as it is. Each result is for the input at its place; with `dry_run` nothing is
        probed or changed.
        """
        names = [str(values.get("name", "")) for values in inputs]
        known = {host.name: host for host in await self.matching(Q(name__in=names), shown=Shown(usage=False))}
        times = Counter(names)
        work = [
            self._apply(name, values, known.get(name), actor, is_twice=times[name] > 1, dry_run=dry_run)
            for name, values in zip(names, inputs, strict=True)
        ]
        # All of them end, also when the database does not answer one.
        answers = await asyncio.gather(*work, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if isinstance(answer, Applied)]

    async def _apply(
        self,
        name: str,
        values: Mapping[str, Any],
        host: ExecutorHost | None,
        actor: Actor,
        *,
        is_twice: bool,
        dry_run: bool,
    ) -> Applied:
        try:
            if is_twice:
                raise Conflict(f"{name} is given twice.", "name")
            if host is None:
                fields = read_new(values)
                return Applied(name, Change.CREATED, "", None if dry_run else await self._create(fields, actor))
            fields = _fields(read_host(values))
            if fields.pop("executor_type") != host.executor_type:
                raise Conflict(
                    f"host {name} is {host.executor_type.upper()}, which cannot be changed; delete it, or choose "
                    "another name.",
                    "executorType",
                )
            changes = {key: value for key, value in _changes(host, fields).items() if getattr(host, key) != value}
            if not changes:
                return Applied(name, Change.UNCHANGED, "", host)
            difference = host_changes.difference(host, changes)
            saved = host if dry_run else await self._change(host, changes, actor)
            return Applied(name, Change.UPDATED, difference, saved)
        except NotFound:
            deleted = Conflict(f"host {name} has just been deleted; apply it again to create it.", "name")
            return Applied(name, Change.REFUSED, "", deleted)
        except UserError as error:
            return Applied(name, Change.REFUSED, "", error)

    async def history(self, host_id: int, since: datetime, until: datetime) -> list[Usage]:
        """The usage of a host by minute, or by hour when the range begins more than 12 hours ago; oldest first."""
        return await threads.read(host_usage.between, host_id, since, until)

    async def drain(self, host_id: int, actor: Actor) -> ExecutorHost:
        """Route no new jobs to the host. Raises NotFound if it does not exist."""
        return await self._save(host_changes.draining(host_id, actor))

    async def resume(self, host_id: int, actor: Actor) -> ExecutorHost:
        """Route jobs to the host again, whatever has failed there before. Raises NotFound if it does not exist."""
        return await self._save(host_changes.resuming(host_id, actor))

    async def delete(self, host_id: int, actor: Actor) -> ExecutorHost:
        """Delete a host; returns it as it was.

        Raises:
            NotFound: there is no such host.
            Conflict: the host holds jobs.
        """
        host: ExecutorHost = await self._writer.write_for_client(host_changes.delete_hosts, (host_id, actor))
        self._factory.invalidate_executor_cache(host)
        return host

    async def declare_lost(self, host_id: int, actor: Actor) -> ExecutorHost:
        """Declare that the host will not come back: its jobs run again elsewhere.

        Raises:
            NotFound: there is no such host.
            Conflict: the host answers its probes.
        """
        host: ExecutorHost = await self._writer.write_for_client(host_changes.declare_lost, (host_id, actor))
        return host

    async def check_health(self, host_ids: Sequence[int] | None, actor: Actor) -> list[ExecutorHost]:
        """Probe the hosts that this node can reach, all of them for None; returns the hosts with the results."""
        where = Q() if host_ids is None else Q(pk__in=host_ids)
        hosts = await threads.read(host_store.bare, where)
        reports = await self._factory.check_health([host for host in hosts if host.node in self._nodes])
        await asyncio.gather(*(self._writer.write(health_store.record_reports, one) for one in reports.values()))
        await self._writer.write_for_client(record_audit, (actor, "checkHealth", f"{len(reports)} hosts"))
        return await self.matching(where)

    async def probe_all(self) -> list[tuple[ExecutorHost, HealthReport | None]]:
        """All hosts, each with a probe's result; None for the hosts of other nodes. Nothing is written."""
        hosts = await threads.read(host_store.bare, Q())
        reports = await self._factory.check_health([host for host in hosts if host.node in self._nodes])
        return [(host, reports.get(host.pk)) for host in hosts]

    # -------------------------------------------------------------- reading

    async def any_exist(self) -> bool:
        """Whether there is any host."""
        return await threads.read(host_store.any_exist)

    async def matching(self, where: Q, limit: int | None = None, shown: Shown = EVERYTHING) -> list[ExecutorHost]:
        """Hosts, oldest first."""
        return await threads.read(host_store.matching, where, limit, shown)

    async def page(
        self, where: Q, order: HostOrder, key: HostKey | None, limit: int, shown: Shown, *, backward: bool = False
    ) -> HostPage:
        """The first `limit` hosts after a key in an order, or the last ones before it."""
        return await threads.read(partial(host_store.page, backward=backward), where, order, key, limit, shown)

    async def by_ids(self, ids: Iterable[int], shown: Shown = EVERYTHING) -> dict[int, ExecutorHost]:
        """Hosts by id; those that do not exist are left out."""
        return await threads.read(host_store.by_ids, ids, shown)

    async def capacity(self, where: Q) -> list[CapacityGroup]:
        """The hosts by executor type and region."""
        groups: defaultdict[tuple[str, str], list[ExecutorHost]] = defaultdict(list)
        for host in await self.matching(where, shown=Shown(config=False)):
            groups[host.executor_type, host.region].append(host)
        return [
            CapacityGroup(kind, region, hosts, sum(map(_takes_a_job, hosts)))
            for (kind, region), hosts in sorted(groups.items())
        ]

    async def _one(self, host_id: int) -> ExecutorHost:
        found = await self.by_ids([host_id])
        if host_id not in found:
            raise NotFound(NO_HOST)
        return found[host_id]

    async def _probed(self, host: ExecutorHost) -> dict[str, Any]:
        host.derive()
        if host.node not in self._nodes:
            # A worker that can reach it probes it as soon as the change is committed.
            return {"health_status": HealthStatus.UNKNOWN, "consecutive_failures": 0, "consecutive_successes": 0}
        report = await self._factory.probe(host)
        health_store.apply_report(host, report)
        return {name: getattr(host, name) for name in health_store.HEALTH_FIELDS}

    async def _save(self, change: HostChange) -> ExecutorHost:
        host: ExecutorHost = await self._writer.write_for_client(host_changes.save_hosts, change)
        return host


def read_new(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a host to create.

    Raises:
        ValidationFailed: values are invalid; each is named, with `prefix` before it.
    """
    try:
        spec = read_host(values)
        return {**_fields(spec), "config": read_config(spec.executor_type, spec.config)}
    except ValidationFailed as error:
        fields = [FieldError(prefix + entry.field, prefix + entry.message) for entry in error.fields]
        raise ValidationFailed(fields) from error


def _changes(host: ExecutorHost, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a host after a change, from those that were given.

    Raises:
        ValidationFailed: keys of the config are unknown or have invalid values, or a secret must be given again.
    """
    if "config" not in fields:
        return fields
    config = _merged_config(host, fields["config"])
    if host.region == region_of(host.executor_type, host.config):
        # The region came from the config, so it follows the new one.
        fields = {"region": region_of(host.executor_type, config), **fields}
    return {**fields, "config": config}


def _merged_config(host: ExecutorHost, patch: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a host after a change. A secret is not sent to another address unless it is given again.

    Raises:
        ValidationFailed: keys are unknown or have invalid values, or a secret must be given again.
    """
    model = CONFIGS[host.executor_type]
    config = merged(hide_secrets(host.config, model), patch)
    moved = any(config.get(key) != host.config.get(key) for key in ADDRESS)
    return read_config(host.executor_type, keep_secrets(config, {} if moved else host.config))


def _fields(spec: HostSpec) -> dict[str, Any]:
    """The fields of the host that were given."""
    values = spec.model_dump(include=spec.model_fields_set)
    if "executor_type" in values:
        values["executor_type"] = str(values["executor_type"])
    return values


def _takes_a_job(host: ExecutorHost) -> bool:
    """Whether the smallest job that prefers this host's type could be routed there now."""
    smallest = JobRequirements(preferred_executor=str(host.executor_type))
    return checks.feasible(host_store.state(host), smallest)
