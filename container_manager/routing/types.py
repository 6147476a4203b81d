"""The values that routing works on. CPU is in millicores, memory in MiB; both are integers.

Named tuples, because a batch makes thousands of them; frozen all the same.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

LEAST_MEMORY, LEAST_CPU = 6, 10
"""What a job must ask for at least; no engine runs a container with less."""

MOST_MEMORY, MOST_CPU, HIGHEST_PRIORITY = 2**31 - 1, 1_000_000_000, 1000
"""The largest limits of a host, and the highest priority of a job."""


class Verdict(IntEnum):
    """NEVER: not even with the fleet active, healthy and empty. NOT_NOW: once it is free, up or back in service."""

    FEASIBLE = 0
    NOT_NOW = 1
    NEVER = 2


class HostState(NamedTuple):
    """A host at one moment, with what its active jobs use. None as a limit is unlimited.

    `reserved_priority`: its room is kept for one waiting job of this priority; None when it is not.
    `cooling`: it has refused something because a quota was used up.
    `grants`: what its settings let a job have beyond the ordinary; "*" is everything.
    """

    id: int
    name: str
    executor_type: str
    region: str
    labels: Mapping[str, str]
    weight: int
    only_preferred: bool
    max_jobs: int
    max_memory: int | None
    max_cpu: int | None
    is_active: bool
    is_draining: bool
    health: str
    jobs: int = 0
    memory: int = 0
    cpu: int = 0
    ejected: bool = False
    cooling: bool = False
    reserved_priority: int | None = None
    grants: tuple[str, ...] = ()


class JobRequirements(NamedTuple):
    """What a job needs and wishes; jobs with equal requirements form a class.

    `reserved_host`: the host whose room is kept for this job.
    `grants`: what a host must grant; "TYPE: …" only a host of that type.
    """

    memory: int = 0
    cpu: int = 0
    preferred_executor: str = ""
    executor_required: bool = False
    region_preference: str = ""
    region_required: bool = False
    selector: tuple[tuple[str, str], ...] = ()
    strategy: str = "weighted"
    priority: int = 0
    reserved_host: int | None = None
    grants: tuple[str, ...] = ()


class JobRequest(NamedTuple):
    """A job to be decided on. `key` is the caller's; `age` orders jobs of equal priority, lowest first."""

    key: int
    age: int
    requirements: JobRequirements


class JobClass(NamedTuple):
    """Waiting jobs of equal requirements. `members(n)` gives the keys of the `n` oldest, or of all if they are fewer.

    `age` is that of the oldest; `key` is the caller's.
    """

    requirements: JobRequirements
    age: int
    members: Callable[[int], Sequence[int]]
    key: str = ""


class CheckResult(NamedTuple):
    """One check of one host for one job: what was needed and what there was."""

    code: str
    verdict: Verdict
    needed: str
    available: str
    message: str

    @property
    def passed(self) -> bool:
        return self.verdict is Verdict.FEASIBLE


class Evaluation(NamedTuple):
    """Every check on every host for one class. `columns[k][i]` is the verdict of check `codes[k]` on `hosts[i]`.

    `seed` gives the draws; None: the caller chose among the feasible hosts, by what it knew besides.
    """

    requirements: JobRequirements
    hosts: tuple[HostState, ...]
    codes: tuple[str, ...]
    columns: tuple[bytes, ...]
    seed: int | None

    def failing(self) -> bytes:
        """A byte a host: 0 where no check fails, 1 where some fail now, 2 or 3 where one always will."""
        merged = 0
        for column in self.columns:
            merged |= int.from_bytes(column)
        return merged.to_bytes(len(self.hosts))

    def feasible(self) -> list[int]:
        """The places in `hosts` of those that pass every check."""
        return [i for i, failing in enumerate(self.failing()) if not failing]

    def rejections(self) -> dict[str, int]:
        """How many hosts fail each check; only the checks that some host fails."""
        failures = (
            (code, len(column) - column.count(0)) for code, column in zip(self.codes, self.columns, strict=True)
        )
        return {code: count for code, count in failures if count}

    def verdict(self) -> Verdict:
        """The best of the hosts' verdicts; an empty fleet is NOT_NOW."""
        failing = self.failing()
        if 0 in failing:
            return Verdict.FEASIBLE
        return Verdict.NOT_NOW if 1 in failing or not failing else Verdict.NEVER

    def results(self, i: int) -> bytes:
        """The verdict of each check on `hosts[i]`."""
        return bytes([column[i] for column in self.columns])


class Decision(NamedTuple):
    """Where a job goes, or that it goes nowhere now. `position` is its place in its class."""

    key: int
    host: HostState | None
    verdict: Verdict
    reason: str
    position: int
    evaluation: Evaluation


class Suggestion(NamedTuple):
    """One change that lets a refused job run: of what it asks for, or of one host.

    `hosts`: how many could take it then.
    """

    message: str
    hosts: int
    requirements: JobRequirements
    changed: HostState | None = None


class Outcome(NamedTuple):
    """What became of a class: those that were placed, oldest first, and why the rest, if any, goes nowhere now."""

    job_class: JobClass
    placed: list[Decision]
    refused: Evaluation | None
