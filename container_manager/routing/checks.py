"""The one predicate: may this host take this job? Every check runs on every host; none is skipped."""

from collections.abc import Callable
from dataclasses import dataclass

from container_manager.routing.types import CheckResult, HostState, JobRequirements, Verdict

FEASIBLE, NOT_NOW, NEVER = int(Verdict.FEASIBLE), int(Verdict.NOT_NOW), int(Verdict.NEVER)


@dataclass(frozen=True, slots=True)
class Check:
    """A named test. `test` is the hot path and returns a Verdict's number; the rest is only called to explain."""

    code: str
    test: Callable[[HostState, JobRequirements], int]
    needed: Callable[[JobRequirements], str]
    available: Callable[[HostState], str]

    def explain(self, host: HostState, job: JobRequirements, verdict: int | None = None) -> CheckResult:
        """The result in words; `verdict` is one recorded earlier, to be told as it was."""
        found = Verdict(self.test(host, job) if verdict is None else verdict)
        needed, available = self.needed(job), self.available(host)
        return CheckResult(self.code, found, needed, available, f"needs {needed}; found {available}")


def _executor_type(host: HostState, job: JobRequirements) -> int:
    if host.executor_type == job.preferred_executor:
        return FEASIBLE
    return NEVER if job.executor_required or host.only_preferred else FEASIBLE


def _region(host: HostState, job: JobRequirements) -> int:
    return NEVER if job.region_required and host.region != job.region_preference else FEASIBLE


def _selector(host: HostState, job: JobRequirements) -> int:
    return FEASIBLE if all(host.labels.get(key) == value for key, value in job.selector) else NEVER


def _room(needed: int, used: int, limit: int | None) -> int:
    if limit is None or used + needed <= limit:
        return FEASIBLE
    return NOT_NOW if needed <= limit else NEVER


def _cores(millis: int) -> str:
    return f"{millis / 1000:g} cores"


def _free(used: int, limit: int | None, unit: Callable[[int], str]) -> str:
    return "unlimited" if limit is None else f"{unit(max(limit - used, 0))} free of {unit(limit)}"


def _mebibytes(amount: int) -> str:
    return f"{amount} MiB"


def _executor_wish(job: JobRequirements) -> str:
    if job.executor_required:
        return f"executor {job.preferred_executor}"
    return f"any executor, {job.preferred_executor} first" if job.preferred_executor else "any executor"


def _region_wish(job: JobRequirements) -> str:
    if job.region_required:
        return f"region {job.region_preference}"
    return f"any region, {job.region_preference} first" if job.region_preference else "any region"


CHECKS: list[Check] = [
    Check(
        "INACTIVE",
        lambda host, _: FEASIBLE if host.is_active else NOT_NOW,
        lambda _: "an active host",
        lambda host: "active" if host.is_active else "inactive",
    ),
    Check(
        "DRAINING",
        lambda host, _: NOT_NOW if host.is_draining else FEASIBLE,
        lambda _: "a host that takes new jobs",
        lambda host: "draining" if host.is_draining else "taking jobs",
    ),
    Check(
        "UNHEALTHY",
        lambda host, _: NOT_NOW if host.health == "unhealthy" else FEASIBLE,
        lambda _: "a host that is not unhealthy",
        lambda host: host.health,
    ),
    Check(
        "HEALTH_UNKNOWN",
        lambda host, _: NOT_NOW if host.health == "unknown" else FEASIBLE,
        lambda _: "a host whose health is known",
        lambda host: host.health,
    ),
    Check(
        "EXECUTOR_TYPE",
        _executor_type,
        _executor_wish,
        lambda host: host.executor_type + (", only for jobs that prefer it" if host.only_preferred else ""),
    ),
    Check("REGION", _region, _region_wish, lambda host: f"region {host.region or '(none)'}"),
    Check(
        "SELECTOR",
        _selector,
        lambda job: ", ".join(f"{key}={value}" for key, value in job.selector) or "no labels",
        lambda host: ", ".join(f"{key}={value}" for key, value in sorted(host.labels.items())) or "no labels",
    ),
    Check(
        "SLOTS",
        lambda host, _: _room(1, host.jobs, host.max_jobs),
        lambda _: "1 slot",
        lambda host: _free(host.jobs, host.max_jobs, "{} slots".format),
    ),
    Check(
        "MEMORY",
        lambda host, job: _room(job.memory, host.memory, host.max_memory),
        lambda job: _mebibytes(job.memory),
        lambda host: _free(host.memory, host.max_memory, _mebibytes),
    ),
    Check(
        "CPU",
        lambda host, job: _room(job.cpu, host.cpu, host.max_cpu),
        lambda job: _cores(job.cpu),
        lambda host: _free(host.cpu, host.max_cpu, _cores),
    ),
]


def register(check: Check) -> None:
    """Add a check to every decision from now on. It must be pure: the same values give the same verdict."""
    if any(known.code == check.code for known in CHECKS):
        raise ValueError(f"a check named {check.code} is registered already")
    CHECKS.append(check)


def verdicts(host: HostState, job: JobRequirements) -> bytes:
    """The verdict of each check, in the order of CHECKS."""
    return bytes([check.test(host, job) for check in CHECKS])


def feasible(host: HostState, job: JobRequirements, *codes: str) -> bool:
    """Whether the host passes the named checks, or all when none is named."""
    return not any(check.test(host, job) for check in CHECKS if not codes or check.code in codes)


def explain(host: HostState, job: JobRequirements, codes: tuple[str, ...], recorded: bytes) -> list[CheckResult]:
    """Recorded verdicts in words, also those of checks that this version no longer has."""
    known = {check.code: check for check in CHECKS}
    return [
        known[code].explain(host, job, verdict)
        if code in known
        else CheckResult(code, Verdict(verdict), "", "", "recorded by a check that is no longer registered")
        for code, verdict in zip(codes, recorded, strict=True)
    ]
