"""The values that routing works on. CPU is in millicores, memory in MiB; both are integers.

Named tuples: a batch creates thousands of them, and they are immutable.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

LEAST_MEMORY, LEAST_CPU = 6, 10
"""The least that a job must ask for; no engine runs a container with less."""

MOST_MEMORY, MOST_CPU, HIGHEST_PRIORITY = 2**31 - 1, 1_000_000_000, 1000
"""The largest limits of a host, and the highest priority of a job."""


class Verdict(IntEnum):
    """NEVER: not even if every host were active, healthy and empty. NOT_NOW: once a host is free or back in service."""

    FEASIBLE = 0
    NOT_NOW = 1
    NEVER = 2


class HostState(NamedTuple):
    """A host at one moment, with what its active jobs use. None as a limit is unlimited.

    `reserved_priority`: its room is reserved for one waiting job of this priority; None when it is not.
    `cooling`: routing avoids it for a while, because its quota was used up.
    `grants`: codes of `domain.capabilities` that its settings allow a job to use.
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
    """What a job needs and prefers; jobs with equal requirements form a class.

    `reserved_host`: the id of the host whose room is reserved for this job.
    `grants`: codes of `domain.capabilities` that a host must allow.
    `failed_hosts`: ids of hosts that have failed the job, which are tried after the others.
    `unfit_hosts`: ids of hosts that lack something which the job turned out to need.
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
    failed_hosts: tuple[int, ...] = ()
    unfit_hosts: tuple[int, ...] = ()


class JobRequest(NamedTuple):
    """A job to decide on. `key` is chosen by the caller; `age` orders jobs of equal priority, lowest first."""

    key: int
    age: int
    requirements: JobRequirements


class JobClass(NamedTuple):
    """Pending jobs of equal requirements.

    `members(n)` returns the keys of the `n` oldest, or of all of them if there are fewer.
    `age` is that of the oldest; `key` is chosen by the caller.
    """

    requirements: JobRequirements
    age: int
    members: Callable[[int], Sequence[int]]
    key: str = ""


class CheckResult(NamedTuple):
    """One check of one host for one job: what was needed and what was available."""

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

    `seed` is that of the random draws; None when the caller chose among the feasible hosts itself.
    `version`: how many changes of a kept `router.Fleet` it includes; None without such a fleet.
    """

    requirements: JobRequirements
    hosts: tuple[HostState, ...]
    codes: tuple[str, ...]
    columns: tuple[bytes, ...]
    seed: int | None
    version: int | None = None

    def failing(self) -> bytes:
        """One byte per host: 0 if no check fails, 1 if some fail now, 2 or 3 if one can never pass."""
        merged = 0
        for column in self.columns:
            merged |= int.from_bytes(column)
        return merged.to_bytes(len(self.hosts))

    def feasible(self) -> list[int]:
        """The indexes in `hosts` of those that pass every check."""
        failing = self.failing()
        return [i for i, fails in enumerate(failing) if not fails] if 0 in failing else []

    def rejections(self) -> dict[str, int]:
        """How many hosts fail each check; checks that no host fails are left out."""
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
    """The host chosen for a job, or the refusal (`host` is None). `position` is the job's index in its class."""

    key: int
    host: HostState | None
    verdict: Verdict
    reason: str
    position: int
    evaluation: Evaluation


class Suggestion(NamedTuple):
    """A change of the job or of one host, or two changes, after which a refused job could run.

    `hosts`: how many hosts could take it then.
    """

    message: str
    hosts: int
    requirements: JobRequirements
    changed: HostState | None = None


class Outcome(NamedTuple):
    """The result for a class: its placed jobs, oldest first, and the evaluation that refuses the rest, if any."""

    job_class: JobClass
    placed: list[Decision]
    refused: Evaluation | None
