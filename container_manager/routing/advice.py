"""Suggestions: changes that would let a refused job run, one or two at once, each verified by deciding again."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, zip_longest

from container_manager.domain import capabilities
from container_manager.routing.checks import cores
from container_manager.routing.router import Fleet, tier
from container_manager.routing.types import (
    HIGHEST_PRIORITY,
    LEAST_CPU,
    LEAST_MEMORY,
    MOST_CPU,
    MOST_MEMORY,
    Evaluation,
    HostState,
    JobRequirements,
    Suggestion,
)

Change = tuple[str, JobRequirements]
HostChange = tuple[str, int, HostState]

MOST_PAIRS, MOST_FIRST = 3, 12
"""Suggestions of two changes that are given, and changes that are tried as the first of two."""


def advise(hosts: Iterable[HostState], job: JobRequirements) -> list[Suggestion]:
    """Changes that would let the job run now, of the job first, then of one host; empty when it can run as it is.

    Where no single change would, each suggestion is two of them.
    """
    fleet = Fleet(hosts, 0)
    evaluation = fleet.evaluate(job)
    if evaluation.feasible():
        return []
    return list(_that_help(fleet, evaluation)) or _pairs(fleet, evaluation)


def _that_help(fleet: Fleet, evaluation: Evaluation) -> Iterator[Suggestion]:
    """The single changes after which a host could take the job."""
    near = _failing(evaluation, 1)
    for message, changed in _changes_of_job(evaluation, near):
        if takers := len(fleet.evaluate(changed).feasible()):
            yield Suggestion(message, takers, changed)
    for message, at, host in _changes_of_host(evaluation, near):
        with _supposed(fleet, at, host):
            takers = len(fleet.evaluate(evaluation.requirements).feasible())
        if takers:
            yield Suggestion(message, takers, evaluation.requirements, host)


def _pairs(fleet: Fleet, evaluation: Evaluation) -> list[Suggestion]:
    """Suggestions of two changes: of each first change, those that help after it."""
    near, job = _failing(evaluation, 2), evaluation.requirements
    found: dict[frozenset[str], Suggestion] = {}
    if not any(near.values()):
        return []
    of_job = [(message, changed, 0, None) for message, changed in _changes_of_job(evaluation, near)]
    of_host = [(message, job, at, host) for message, at, host in _changes_of_host(evaluation, near)]
    # In turn, so that both kinds are tried.
    firsts = [entry for pair in zip_longest(of_job, of_host) for entry in pair if entry is not None]
    for first, changed, at, host in firsts[:MOST_FIRST]:
        with _supposed(fleet, at, host):
            seconds = list(islice(_that_help(fleet, fleet.evaluate(changed)), MOST_PAIRS))
        for second in seconds:
            message = f"{first.removesuffix('.')}, and {second.message[0].lower()}{second.message[1:]}"
            # The same two changes in the other order are the same suggestion.
            parts = frozenset((first, second.message))
            found.setdefault(parts, second._replace(message=message, changed=second.changed or host))
        if len(found) >= MOST_PAIRS:
            break
    return list(found.values())[:MOST_PAIRS]


@contextmanager
def _supposed(fleet: Fleet, at: int, host: HostState | None) -> Iterator[None]:
    """Replace a host of the fleet for a while; None: leave it as it is."""
    before = fleet.hosts[at]
    if host is not None:
        fleet.replace(at, host)
    try:
        yield
    finally:
        fleet.replace(at, before)


def _failing(evaluation: Evaluation, count: int) -> dict[str, list[int]]:
    """By check, the indexes of the hosts that fail it and so many checks in all."""
    columns = dict(zip(evaluation.codes, evaluation.columns, strict=True))
    fails = Counter(at for column in columns.values() for at, verdict in enumerate(column) if verdict)
    return {
        code: [at for at, verdict in enumerate(column) if verdict and fails[at] == count]
        for code, column in columns.items()
    }


# ------------------------------------------------------------------ changes of the job


def _changes_of_job(evaluation: Evaluation, near: dict[str, list[int]]) -> Iterator[Change]:
    job, hosts = evaluation.requirements, evaluation.hosts
    if (memory := _most_free(hosts, near["MEMORY"], lambda h: (h.max_memory, h.memory))) >= LEAST_MEMORY:
        yield f"Ask for {memory} MiB of memory instead of {job.memory}.", job._replace(memory=memory)
    if (cpu := _most_free(hosts, near["CPU"], lambda h: (h.max_cpu, h.cpu))) >= LEAST_CPU:
        yield f"Ask for {cores(cpu)} instead of {cores(job.cpu)}.", job._replace(cpu=cpu)
    if job.region_required:
        for region in _commonest(hosts[at].region for at in near["REGION"]):
            yield f"Require region {region} instead of {job.region_preference}.", job._replace(region_preference=region)
        yield f"Do not require region {job.region_preference}.", job._replace(region_required=False)
    if job.executor_required:
        # Not hosts that take only jobs which prefer their type: a real job must not be sent to a simulated host.
        for kind in _commonest(hosts[at].executor_type for at in near["EXECUTOR_TYPE"] if not hosts[at].only_preferred):
            message = f"Require executor {kind} instead of {job.preferred_executor}."
            yield message, job._replace(preferred_executor=kind)
        yield f"Do not require executor {job.preferred_executor}.", job._replace(executor_required=False)
    yield from _with_fewer_demands(job)
    kept_for = [priority for at in near["RESERVED"] if (priority := hosts[at].reserved_priority) is not None]
    if kept_for and (least := min(kept_for)) < HIGHEST_PRIORITY:
        yield f"Raise the priority from {job.priority} to {least + 1}.", job._replace(priority=least + 1)


def _with_fewer_demands(job: JobRequirements) -> Iterator[Change]:
    for key, value in job.selector:
        rest = tuple(pair for pair in job.selector if pair[0] != key)
        yield f"Drop {key}={value} from the host selector.", job._replace(selector=rest)
    if len(job.selector) > 1:
        yield "Drop the host selector.", job._replace(selector=())
    for code in job.grants:
        others = tuple(other for other in job.grants if other != code)
        yield f"Do not ask for {capabilities.describe(code)}.", job._replace(grants=others)


def _most_free(
    hosts: Sequence[HostState], near: Iterable[int], limit: Callable[[HostState], tuple[int | None, int]]
) -> int:
    free = ((most, used) for most, used in (limit(hosts[at]) for at in near) if most is not None)
    return max((most - used for most, used in free), default=0)


def _commonest(values: Iterable[str]) -> list[str]:
    counts = Counter(value for value in values if value)
    return [min(counts, key=lambda value: (-counts[value], value))] if counts else []


# ------------------------------------------------------------------ changes of one host


def _changes_of_host(evaluation: Evaluation, near: dict[str, list[int]]) -> Iterator[HostChange]:
    job, hosts = evaluation.requirements, evaluation.hosts
    for code, (message, repair) in _REPAIRS.items():
        repaired = [(at, host) for at in near[code] if _can_be_set(host := repair(hosts[at], job))]
        if repaired:
            at, host = min(repaired, key=lambda pair: (tier(pair[1], job), _raised(hosts[pair[0]], pair[1]), pair[0]))
            yield message(host), at, host


def _can_be_set(host: HostState) -> bool:
    return max(host.max_jobs, host.max_memory or 0) <= MOST_MEMORY and (host.max_cpu or 0) <= MOST_CPU


def _raised(before: HostState, after: HostState) -> int:
    """By how much a change raises a limit."""
    limits = ((after.max_jobs, before.max_jobs), (after.max_memory, before.max_memory), (after.max_cpu, before.max_cpu))
    return sum((new or 0) - (old or 0) for new, old in limits)


_REPAIRS: dict[str, tuple[Callable[[HostState], str], Callable[[HostState, JobRequirements], HostState]]] = {
    "EJECTED": (
        lambda h: f"Resume host {h.name}, if its launches succeed again.",
        lambda h, _: h._replace(ejected=False),
    ),
    "COOLDOWN": (
        lambda h: f"Resume host {h.name}, if its quota allows it again.",
        lambda h, _: h._replace(cooling=False),
    ),
    "DRAINING": (lambda h: f"Resume host {h.name}.", lambda h, _: h._replace(is_draining=False)),
    "INACTIVE": (lambda h: f"Activate host {h.name}.", lambda h, _: h._replace(is_active=True)),
    "UNHEALTHY": (lambda h: f"Bring host {h.name} back to health.", lambda h, _: h._replace(health="healthy")),
    "HEALTH_UNKNOWN": (lambda h: f"Have host {h.name} probed.", lambda h, _: h._replace(health="healthy")),
    "SLOTS": (
        lambda h: f"Raise maxConcurrentJobs of host {h.name} to {h.max_jobs}.",
        lambda h, _: h._replace(max_jobs=h.jobs + 1),
    ),
    "MEMORY": (
        lambda h: f"Raise maxMemoryMb of host {h.name} to {h.max_memory}.",
        lambda h, job: h._replace(max_memory=h.memory + job.memory),
    ),
    "CPU": (
        lambda h: f"Raise maxCpuCores of host {h.name} to {cores(h.max_cpu or 0).removesuffix(' cores')}.",
        lambda h, job: h._replace(max_cpu=h.cpu + job.cpu),
    ),
}
