"""Decides: pure, the same input gives the same decisions."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from container_manager.routing import checks
from container_manager.routing.strategies import STRATEGIES, UNLIMITED, Chooser
from container_manager.routing.types import Decision, Evaluation, HostState, JobRequest, JobRequirements, Verdict

ALGORITHM = 1
"""Changes whenever the same record would be decided differently."""


def decide(hosts: Sequence[HostState], jobs: Iterable[JobRequest], seed: int) -> list[Decision]:
    """Decide on all jobs, in order of priority, then age, as if each reserved its host before the next.

    Jobs of equal priority and requirements form a class: its hosts are checked once, and each of its jobs
    costs one draw. So the cost grows with classes x hosts, not with jobs x hosts.
    """
    seeds = random.Random(seed)  # noqa: S311 - balances load, guards nothing
    states = {host.id: host for host in hosts}
    decisions: list[Decision] = []
    for members in _classes(jobs):
        requirements = members[0].requirements
        evaluation = evaluate(states.values(), requirements, seeds.getrandbits(32))
        chosen = place(evaluation, len(members))
        placed = sum(1 for host in chosen if host is not None)
        why = reasons(evaluation, {host for host in chosen if host is not None})
        decisions += [
            Decision(member.key, states[host], Verdict.FEASIBLE, why[host], position, evaluation)
            for position, (member, host) in enumerate(zip(members, chosen, strict=True))
            if host is not None
        ]
        _occupy(states, requirements, chosen)
        if placed < len(members):
            # What is left was refused by the fleet as this batch has filled it.
            after = evaluate(states.values(), requirements, evaluation.seed) if placed else evaluation
            verdict, sentence = after.verdict(), refusal(after)
            decisions += [
                Decision(member.key, None, verdict, sentence, position, after)
                for position, member in enumerate(members[placed:])
            ]
    return decisions


def evaluate(hosts: Iterable[HostState], requirements: JobRequirements, seed: int | None = None) -> Evaluation:
    """Run every check on every host for one class."""
    states = tuple(hosts)
    codes = tuple(check.code for check in checks.CHECKS)
    return Evaluation(
        requirements, states, codes, tuple([checks.verdicts(host, requirements) for host in states]), seed
    )


def place(evaluation: Evaluation, count: int) -> list[int | None]:
    """The ids of the hosts for the first `count` jobs of a class; None once there is no more room."""
    job = evaluation.requirements
    rng = random.Random(evaluation.seed)  # noqa: S311 - balances load, guards nothing
    choosers = [
        STRATEGIES[job.strategy](hosts, {host.id: _room(host, job) for host in hosts}, rng)
        for hosts in tiers(evaluation)
    ]
    return [_pick(choosers, rng.random()) for _ in range(count)]


def tiers(evaluation: Evaluation) -> list[list[HostState]]:
    """Feasible hosts by wish: preferred executor before others, then preferred region, then weight above zero."""
    grouped: defaultdict[tuple[bool, bool, bool], list[HostState]] = defaultdict(list)
    for host, result in zip(evaluation.hosts, evaluation.results, strict=True):
        if not any(result):
            grouped[tier(host, evaluation.requirements)].append(host)
    return [grouped[key] for key in sorted(grouped)]


def tier(host: HostState, job: JobRequirements) -> tuple[bool, bool, bool]:
    """How far a host is from the job's wishes; the least is tried first."""
    return (
        bool(job.preferred_executor) and host.executor_type != job.preferred_executor,
        bool(job.region_preference) and host.region != job.region_preference,
        host.weight == 0,
    )


def reasons(evaluation: Evaluation, chosen: Iterable[int]) -> dict[int, str]:
    """Why each of these hosts was chosen, in one sentence."""
    job = evaluation.requirements
    groups = tiers(evaluation)
    feasible = {host.id: host for group in groups for host in group}
    rivals = {tier(group[0], job): (len(group), sum(host.weight for host in group)) for group in groups}
    scope = f"{len(feasible)} of {len(evaluation.hosts)} hosts could take it."
    why = {}
    for host in (feasible[pk] for pk in chosen):
        choice = _choice(job, host, *rivals[tier(host, job)])
        why[host.id] = f"{_wishes(job, host)}{choice}; {scope}"
    return why


def refusal(evaluation: Evaluation) -> str:
    """Why no host, in one sentence."""
    if not evaluation.hosts:
        return "There is no host yet; create one and the job will be routed to it."
    counts = ", ".join(f"{code} {count}" for code, count in evaluation.rejections().items())
    if evaluation.verdict() is Verdict.NEVER:
        return f"No host could ever take this job; of {len(evaluation.hosts)} hosts these checks fail: {counts}."
    return f"No host can take this job now; of {len(evaluation.hosts)} hosts these checks fail: {counts}."


def _classes(jobs: Iterable[JobRequest]) -> list[list[JobRequest]]:
    classes: defaultdict[tuple[int, JobRequirements], list[JobRequest]] = defaultdict(list)
    for job in sorted(jobs, key=lambda job: job.age):
        classes[-job.priority, job.requirements].append(job)
    return [members for _, members in sorted(classes.items(), key=lambda item: (item[0][0], item[1][0].age))]


def _room(host: HostState, job: JobRequirements) -> int:
    """How many jobs of this class fit; at least one, since the host is feasible."""
    sizes = (
        (1, host.jobs, host.max_jobs),
        (job.memory, host.memory, host.max_memory),
        (job.cpu, host.cpu, host.max_cpu),
    )
    return min(
        ((limit - used) // needed for needed, used, limit in sizes if needed and limit is not None), default=UNLIMITED
    )


def _pick(choosers: list[Chooser], uniform: float) -> int | None:
    while choosers:
        host = choosers[0].pick(uniform)
        if host is not None:
            return host
        choosers.pop(0)
    return None


def _occupy(states: dict[int, HostState], job: JobRequirements, chosen: Iterable[int | None]) -> None:
    taken: defaultdict[int, int] = defaultdict(int)
    for host in chosen:
        if host is not None:
            taken[host] += 1
    for host, count in taken.items():
        state = states[host]
        states[host] = replace(
            state,
            jobs=state.jobs + count,
            memory=state.memory + count * job.memory,
            cpu=state.cpu + count * job.cpu,
        )


def _wishes(job: JobRequirements, host: HostState) -> str:
    parts = []
    if job.preferred_executor:
        met = host.executor_type == job.preferred_executor
        parts.append(
            f"Preferred executor {job.preferred_executor}"
            if met
            else f"No {job.preferred_executor} host could take it, so {host.executor_type} instead"
        )
    if job.region_preference:
        met = host.region == job.region_preference
        parts.append(f"Region {host.region} as preferred" if met else f"No room in region {job.region_preference}")
    return "".join(f"{part}. " for part in parts)


def _choice(job: JobRequirements, host: HostState, rivals: int, weight: int) -> str:
    if rivals == 1:
        return f"Host {host.name} was the only choice"
    if job.strategy == "balanced":
        return f"Host {host.name} had the least load for its weight among {rivals}"
    if job.strategy == "packed":
        return f"Host {host.name} was the fullest that fits among {rivals}"
    share = f"weight {host.weight} of {weight}" if weight else "equal chance, all weights being 0"
    return f"Host {host.name} drawn by {share} among {rivals}"
