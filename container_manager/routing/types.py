"""The values that routing works on. CPU is in millicores, memory in MiB; both are integers."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Verdict(IntEnum):
    """NEVER: not even with the fleet active, healthy and empty. NOT_NOW: once it is free, up or back in service."""

    FEASIBLE = 0
    NOT_NOW = 1
    NEVER = 2


@dataclass(frozen=True, slots=True)
class HostState:
    """A host at one moment, with what its active jobs use. None as a limit is unlimited."""

    id: int
    name: str
    executor_type: str
    region: str
    labels: Mapping[str, str]
    weight: int
    is_active: bool
    is_draining: bool
    health: str
    only_preferred: bool
    max_jobs: int
    max_memory: int | None
    max_cpu: int | None
    jobs: int = 0
    memory: int = 0
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class JobRequirements:
    """What a job needs and wishes; jobs with equal requirements and priority form a class."""

    memory: int = 0
    cpu: int = 0
    preferred_executor: str = ""
    executor_required: bool = False
    region_preference: str = ""
    region_required: bool = False
    selector: tuple[tuple[str, str], ...] = ()
    strategy: str = "weighted"


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to be decided on. `key` is the caller's; `age` orders jobs within a class, lowest first."""

    key: int
    age: int
    priority: int
    requirements: JobRequirements


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check of one host for one job: what was needed and what there was."""

    code: str
    verdict: Verdict
    needed: str
    available: str
    message: str

    @property
    def passed(self) -> bool:
        return self.verdict is Verdict.FEASIBLE


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Every check on every host for one class. `results[i][k]` is the verdict of check `codes[k]` on `hosts[i]`.

    `seed` gives the draws; None: the caller chose among the feasible hosts, by what it knew besides.
    """

    requirements: JobRequirements
    hosts: tuple[HostState, ...]
    codes: tuple[str, ...]
    results: tuple[bytes, ...]
    seed: int | None

    def rejections(self) -> dict[str, int]:
        """How many hosts fail each check; only the checks that some host fails."""
        counts = [0] * len(self.codes)
        for result in self.results:
            if any(result):
                for k, verdict in enumerate(result):
                    if verdict:
                        counts[k] += 1
        return {code: count for code, count in zip(self.codes, counts, strict=True) if count}

    def verdict(self) -> Verdict:
        """The best of the hosts' verdicts; an empty fleet is NOT_NOW."""
        return Verdict(min((max(result, default=0) for result in self.results), default=Verdict.NOT_NOW))


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a job goes, or that it goes nowhere now. `position` is its place in its class."""

    key: int
    host: HostState | None
    verdict: Verdict
    reason: str
    position: int
    evaluation: Evaluation
