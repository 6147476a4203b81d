"""Decides which host runs each job. Pure: the same input gives the same decisions.

The stages of a decision, in order: group jobs into classes (`classes`), run every check on every host for a class
(`Fleet.evaluate`), sort the feasible hosts into tiers (`tiers`), choose by strategy within the first tier that has room
(`choose`), and occupy the chosen hosts before the next class is decided.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from container_manager.routing import checks
from container_manager.routing.checks import Check
from container_manager.routing.reasons import reasons, refusal
from container_manager.routing.standing import Standing
from container_manager.routing.strategies import STRATEGIES, UNLIMITED, Chooser
from container_manager.routing.types import (
    Decision,
    Evaluation,
    HostState,
    JobClass,
    JobRequest,
    JobRequirements,
    Outcome,
    Verdict,
)

MOST_COLUMNS, MOST_STANDINGS, MOST_CHANGES = 1200, 16, 1000
"""What a fleet keeps between batches: columns of verdicts, classes that are drawn from, and changes beyond its size."""

DRAWS_PER_HOST = 8
"""With more draws than one for so many hosts, counting the weights once is faster than to draw from a tree."""

ALGORITHM = 3
"""Must change whenever the same record would be decided differently, so that replay can tell."""


def decide(hosts: Iterable[HostState], jobs: Iterable[JobRequest], seed: int) -> list[Decision]:
    """Decide on all jobs, in order of priority, then age, as if each reserved its host before the next.

    Jobs of equal requirements form a class: its hosts are checked once, and each of its jobs costs one draw.
    So the cost grows with classes x hosts, not with jobs x hosts.
    """
    decisions: list[Decision] = []
    for outcome in decide_classes(Fleet(hosts, seed), classes(jobs)):
        decisions += outcome.placed
        if outcome.refused is not None:
            keys = outcome.job_class.members(UNLIMITED)[len(outcome.placed) :]
            decisions += refuse(keys, outcome.refused)
    return decisions


def decide_classes(fleet: "Fleet", pending: Iterable[JobClass]) -> Iterator[Outcome]:
    """Place as many jobs of each class as fit, by priority, then by the age of a class's oldest job.

    A class is asked for no more members than there is room for, plus one to know whether any are left.
    """
    ordered = sorted(pending, key=lambda job_class: (-job_class.requirements.priority, job_class.age))
    return (fleet.decide(job_class) for job_class in ordered)


def classes(jobs: Iterable[JobRequest]) -> list[JobClass]:
    """Group jobs of equal requirements, each group by age."""
    groups: defaultdict[JobRequirements, list[JobRequest]] = defaultdict(list)
    for job in sorted(jobs, key=lambda job: job.age):
        groups[job.requirements].append(job)
    return [
        JobClass(needs, members[0].age, partial(_oldest, [job.key for job in members]))
        for needs, members in groups.items()
    ]


def _oldest(keys: list[int], count: int) -> Sequence[int]:
    return keys[:count]


class _Column:
    """The verdicts of one check for one need, and how many changes of the fleet they include."""

    __slots__ = ("verdicts", "version")

    def __init__(self, verdicts: bytes, version: int) -> None:
        self.verdicts = verdicts
        self.version = version


class Fleet:
    """Hosts that fill up as jobs are placed: those of one batch, or those that a process keeps from batch to batch.

    A check runs once for all jobs with equal needs, and again only on hosts that have changed since. `codes`: run only
    the checks with these codes. `kept`: decisions of the next batches will cost what has changed until then.
    """

    def __init__(
        self, hosts: Iterable[HostState], seed: int, codes: Collection[str] | None = None, *, kept: bool = False
    ) -> None:
        self.hosts = list(hosts)
        self._states: tuple[HostState, ...] | None = None
        """Shared by the evaluations between two changes."""
        self.kept = kept
        self._seeds = random.Random(seed)  # noqa: S311 - balances load, guards nothing
        self._checks = tuple([check for check in checks.CHECKS if codes is None or check.code in codes])
        self._codes = tuple(check.code for check in self._checks)
        self._columns: dict[tuple[str, Hashable], _Column] = {}
        self._standings: dict[JobRequirements, Standing | None] = {}
        self._changed: list[int] = []
        self._forgotten = 0

    @property
    def version(self) -> int:
        """How many changes there were."""
        return self._forgotten + len(self._changed)

    def changed_since(self, version: int, until: int | None = None) -> set[int] | None:
        """The indexes of the hosts that have changed between two versions; None when that is forgotten."""
        if version < self._forgotten:
            return None
        end = None if until is None else until - self._forgotten
        return set(self._changed[version - self._forgotten : end])

    def evaluate(self, job: JobRequirements) -> Evaluation:
        """Run every check on every host, as the fleet is now."""
        columns = tuple([self._column(check, check.need(job)) for check in self._checks])
        seed = self._seeds.getrandbits(32)
        if self._states is None:
            self._states = tuple(self.hosts)
        return Evaluation(job, self._states, self._codes, columns, seed, self.version if self.kept else None)

    def replace(self, at: int, host: HostState) -> None:
        """Set the host at this index to a new state."""
        self.hosts[at] = host
        self._states = None
        self._changed.append(at)

    def forget(self) -> None:
        """Drop old changes, and what was computed before them."""
        if len(self._changed) > MOST_CHANGES + len(self.hosts):
            self._forgotten += len(self._changed)
            self._changed.clear()
        while len(self._columns) > MOST_COLUMNS:
            del self._columns[next(iter(self._columns))]
        while len(self._standings) > MOST_STANDINGS:
            del self._standings[next(iter(self._standings))]

    def decide(self, job_class: JobClass) -> Outcome:
        """Place as many jobs of the class as fit."""
        evaluation = self.evaluate(job_class.requirements)
        standing = self._standing(evaluation)
        free = standing.feasible if standing else len(evaluation.feasible())
        if not free:
            return Outcome(job_class, [], evaluation)
        # Each feasible host takes at least one job; the exact room matters only for a class that is larger.
        keys = job_class.members(free + 1)
        if len(keys) > free:
            free = room(evaluation)
            keys = job_class.members(free + 1)
        placed = self._take(evaluation, keys[:free], standing)
        if len(keys) <= free:
            return Outcome(job_class, placed, None)
        # The rest is refused by the fleet as this batch has filled it.
        return Outcome(job_class, placed, self.evaluate(job_class.requirements))

    def _standing(self, evaluation: Evaluation) -> Standing | None:
        """Where hosts stand for the class, if it was decided before; to find that out costs more than one decision."""
        job, version = evaluation.requirements, self.version
        if not self.kept or job.strategy != "weighted":
            return None
        if job not in self._standings:
            self._standings[job] = None
            return None
        known = self._standings.pop(job)
        changed = None if known is None else self.changed_since(known.version)
        if known is None or changed is None:
            known = Standing(evaluation, tier)
        else:
            known.update(evaluation, changed)
        known.version = version
        self._standings[job] = known
        return known

    def _take(self, evaluation: Evaluation, keys: Sequence[int], standing: Standing | None) -> list[Decision]:
        hosts, job = evaluation.hosts, evaluation.requirements
        if standing is not None and len(keys) * DRAWS_PER_HOST < len(hosts):
            feasible = standing.feasible
            rivals_of = standing.rivals()
            chosen = _choose(evaluation, len(keys), lambda _: standing.choosers(partial(_room, job), hosts))
        else:
            groups = tiers(evaluation)
            feasible = sum(map(len, groups.values()))
            rivals_of = {key: (len(group), sum(hosts[at].weight for at in group)) for key, group in groups.items()}
            chosen = _choose(evaluation, len(keys), partial(_choosers, evaluation, groups))
        taken = Counter(chosen)
        why = reasons(evaluation, {at: rivals_of[tier(hosts[at], job)] for at in taken}, feasible)
        self._occupy(job, taken)
        return [
            Decision(key, hosts[at], Verdict.FEASIBLE, why[at], position, evaluation)
            for position, (key, at) in enumerate(zip(keys, chosen, strict=True))
        ]

    def _occupy(self, job: JobRequirements, taken: Counter[int]) -> None:
        for at, count in taken.items():
            state = self.hosts[at]
            memory, cpu = state.memory + count * job.memory, state.cpu + count * job.cpu
            self.replace(at, state._replace(jobs=state.jobs + count, memory=memory, cpu=cpu))
        if taken and job.reserved_host is not None:
            # The job with the reservation has a host, so the reserved room is free for other jobs again.
            for at, state in enumerate(self.hosts):
                if state.id == job.reserved_host:
                    self.replace(at, state._replace(reserved_priority=None))

    def _column(self, check: Check, need: Hashable) -> bytes:
        test, hosts, version = check.test, self.hosts, self.version
        column = self._columns.pop((check.code, need), None)
        changed = None if column is None else self.changed_since(column.version)
        if column is None or changed is None:
            column = _Column(bytes([test(host, need) for host in hosts]), version)
        elif changed:
            verdicts = bytearray(column.verdicts)
            for at in changed:
                verdicts[at] = test(hosts[at], need)
            column.verdicts, column.version = bytes(verdicts), version
        # At the end: the first is the one that was not used for the longest time.
        self._columns[check.code, need] = column
        return column.verdicts


def evaluate(
    hosts: Iterable[HostState], job: JobRequirements, seed: int | None = None, codes: Collection[str] | None = None
) -> Evaluation:
    """Run every check on every host for one class, or only those with the given codes. `seed` is kept for the draws."""
    return Fleet(hosts, 0, codes).evaluate(job)._replace(seed=seed)


def choose(evaluation: Evaluation, count: int) -> list[int]:
    """The hosts of the first `count` jobs of a class, as indexes in `evaluation.hosts`; fewer when room runs out."""
    return _choose(evaluation, count, partial(_choosers, evaluation, tiers(evaluation)))


def _choosers(evaluation: Evaluation, groups: Mapping[int, Sequence[int]], rng: random.Random) -> list[Chooser]:
    job, hosts = evaluation.requirements, evaluation.hosts
    return [
        STRATEGIES[job.strategy]({at: hosts[at] for at in groups[key]}, partial(_room, job), rng)
        for key in sorted(groups)
    ]


def _choose(evaluation: Evaluation, count: int, make: Callable[[random.Random], Sequence[Chooser]]) -> list[int]:
    rng = random.Random(evaluation.seed)  # noqa: S311 - balances load, guards nothing
    choosers = list(make(rng))
    chosen = []
    for _ in range(count):
        host = _pick(choosers, rng.random())
        if host is None:
            break
        chosen.append(host)
    return chosen


def tiers(evaluation: Evaluation) -> dict[int, list[int]]:
    """Feasible hosts by tier; the lowest is tried first.

    The order is by preferred executor, preferred region, hosts that have not failed the job, and weight above 0.
    """
    grouped: defaultdict[int, list[int]] = defaultdict(list)
    for at in evaluation.feasible():
        grouped[tier(evaluation.hosts[at], evaluation.requirements)].append(at)
    return dict(grouped)


def tier(host: HostState, job: JobRequirements) -> int:
    """How far a host is from the job's preferences; the lowest tier is tried first."""
    far = 0 if host.weight else 1
    if host.id in job.failed_hosts:
        far += 2
    if job.region_preference and host.region != job.region_preference:
        far += 4
    if job.preferred_executor and host.executor_type != job.preferred_executor:
        far += 8
    return far


def room(evaluation: Evaluation) -> int:
    """How many jobs of the class fit on the fleet."""
    return sum(_room(evaluation.requirements, evaluation.hosts[at]) for at in evaluation.feasible())


def refuse(keys: Sequence[int], evaluation: Evaluation) -> list[Decision]:
    """Refusals for the jobs of a class that have no host now."""
    if not keys:
        return []
    verdict, sentence = evaluation.verdict(), refusal(evaluation)
    return [Decision(key, None, verdict, sentence, position, evaluation) for position, key in enumerate(keys)]


def host_to_reserve(evaluation: Evaluation, among: Collection[int] | None = None) -> HostState | None:
    """The host to reserve for a job that fits nowhere now: one that lacks nothing but room.

    Of those it takes the best tier, then the host with the least share of its size to become free. None when no host
    lacks only room. `among`: consider only hosts with these ids.
    """
    job = evaluation.requirements
    columns = zip(evaluation.codes, evaluation.columns, strict=True)
    others = [column for code, column in columns if code not in checks.ROOM]
    failing = evaluation.failing()
    candidates = [
        host
        for at, host in enumerate(evaluation.hosts)
        if failing[at] == int(Verdict.NOT_NOW)
        and (among is None or host.id in among)
        and not any(column[at] for column in others)
    ]
    return min(candidates, key=lambda host: (tier(host, job), _lacking(host, job), host.id), default=None)


def _sizes(host: HostState, job: JobRequirements) -> tuple[tuple[int, int, int | None], ...]:
    """Needed, used and limit of slots, memory and CPU."""
    return (
        (1, host.jobs, host.max_jobs),
        (job.memory, host.memory, host.max_memory),
        (job.cpu, host.cpu, host.max_cpu),
    )


def _room(job: JobRequirements, host: HostState) -> int:
    fits = [(limit - used) // needed for needed, used, limit in _sizes(host, job) if needed and limit is not None]
    return min(fits, default=UNLIMITED)


def _lacking(host: HostState, job: JobRequirements) -> float:
    return max((used + needed - limit) / limit for needed, used, limit in _sizes(host, job) if limit)


def _pick(choosers: list[Chooser], uniform: float) -> int | None:
    while choosers:
        host = choosers[0].pick(uniform)
        if host is not None:
            return host
        choosers.pop(0)
    return None
