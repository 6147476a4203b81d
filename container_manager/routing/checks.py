"""The one predicate: may this host take this job? Every check runs on every host, so that a record has all verdicts.

To add a check, append a `Check` to `CHECKS`, or call `register` from an application's own start-up code.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from container_manager.domain import capabilities
from container_manager.routing.types import CheckResult, HostState, JobRequirements, Verdict

FEASIBLE, NOT_NOW, NEVER = int(Verdict.FEASIBLE), int(Verdict.NOT_NOW), int(Verdict.NEVER)


@dataclass(frozen=True, slots=True)
class Check:
    """A named, pure test: the same values give the same verdict.

    `code` names the check in records and in the API.
    `need` extracts from a job everything that `test` reads of it; jobs with equal needs share the results.
    `test` takes a host and that need and returns a Verdict's number. It runs for every host of every decision.
    `needed` and `available` describe the two sides in words; they are called only to explain a decision.
    """

    code: str
    need: Callable[[JobRequirements], Hashable]
    test: Callable[[HostState, Any], int]
    needed: Callable[[JobRequirements], str]
    available: Callable[[HostState], str]

    def explain(self, host: HostState, job: JobRequirements, verdict: int | None = None) -> CheckResult:
        """The result in words; `verdict` is a recorded one, which is explained instead of testing again."""
        found = Verdict(self.test(host, self.need(job)) if verdict is None else verdict)
        needed, available = self.needed(job), self.available(host)
        return CheckResult(self.code, found, needed, available, f"needs {needed}; found {available}")


def _executor_type(host: HostState, wish: tuple[str, bool]) -> int:
    preferred, required = wish
    if host.executor_type == preferred:
        return FEASIBLE
    return NEVER if required or host.only_preferred else FEASIBLE


def _selector(host: HostState, selector: tuple[tuple[str, str], ...]) -> int:
    for key, value in selector:
        if host.labels.get(key) != value:
            return NEVER
    return FEASIBLE


def _limits(host: HostState, needed: tuple[str, ...]) -> int:
    if not needed or capabilities.EVERYTHING in host.grants:
        return FEASIBLE
    lacking = (code for code in needed if code not in host.grants)
    return (
        NEVER if any(capabilities.executor_type_of(code) in {"", host.executor_type} for code in lacking) else FEASIBLE
    )


def _reserved(host: HostState, claim: tuple[int, int | None]) -> int:
    if host.reserved_priority is None:
        return FEASIBLE
    priority, reserved_host = claim
    return FEASIBLE if priority > host.reserved_priority or reserved_host == host.id else NOT_NOW


def _room(needed: int, used: int, limit: int | None) -> int:
    if limit is None or used + needed <= limit:
        return FEASIBLE
    return NOT_NOW if needed <= limit else NEVER


def cores(millis: int) -> str:
    """Millicores in words, exactly."""
    return f"{millis / 1000:.3f}".rstrip("0").rstrip(".") + " cores"


def _free(used: int, limit: int | None, unit: Callable[[int], str]) -> str:
    return "unlimited" if limit is None else f"{unit(max(limit - used, 0))} free of {unit(limit)}"


def _slots(number: int) -> str:
    return "1 slot" if number == 1 else f"{number} slots"


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


def _listed(codes: tuple[str, ...]) -> str:
    return ", ".join(map(capabilities.describe_with_type, codes))


def _nothing(_: JobRequirements) -> None:
    return None


CHECKS: list[Check] = [
    Check(
        "INACTIVE",
        _nothing,
        lambda host, _: FEASIBLE if host.is_active else NOT_NOW,
        lambda _: "an active host",
        lambda host: "active" if host.is_active else "inactive",
    ),
    Check(
        "DRAINING",
        _nothing,
        lambda host, _: NOT_NOW if host.is_draining else FEASIBLE,
        lambda _: "a host that takes new jobs",
        lambda host: "draining" if host.is_draining else "taking jobs",
    ),
    Check(
        "UNHEALTHY",
        _nothing,
        lambda host, _: NOT_NOW if host.health == "unhealthy" else FEASIBLE,
        lambda _: "a host that is not unhealthy",
        lambda host: host.health,
    ),
    Check(
        "HEALTH_UNKNOWN",
        _nothing,
        lambda host, _: NOT_NOW if host.health == "unknown" else FEASIBLE,
        lambda _: "a host whose health is known",
        lambda host: host.health,
    ),
    Check(
        "EJECTED",
        _nothing,
        lambda host, _: NOT_NOW if host.ejected else FEASIBLE,
        lambda _: "a host whose launches succeed",
        lambda host: "ejected for a while, because launches kept failing there" if host.ejected else "not ejected",
    ),
    Check(
        "COOLDOWN",
        _nothing,
        lambda host, _: NOT_NOW if host.cooling else FEASIBLE,
        lambda _: "a host with quota left",
        lambda host: "avoided for a while, because its quota was used up" if host.cooling else "quota left",
    ),
    Check(
        "EXECUTOR_TYPE",
        lambda job: (job.preferred_executor, job.executor_required),
        _executor_type,
        _executor_wish,
        lambda host: host.executor_type + (", only for jobs that prefer it" if host.only_preferred else ""),
    ),
    Check(
        "EXECUTOR_LIMITS",
        lambda job: job.grants,
        _limits,
        lambda job: _listed(job.grants) or "nothing that only some hosts offer",
        lambda host: (
            "everything" if capabilities.EVERYTHING in host.grants else _listed(host.grants) or "none of these"
        ),
    ),
    Check(
        "HOST_LACKS",
        lambda job: job.unfit_hosts,
        lambda host, unfit: NEVER if host.id in unfit else FEASIBLE,
        lambda job: "a host that lacks nothing it needs" if job.unfit_hosts else "nothing that a host has lacked",
        lambda _: "what the job's attempts show",
    ),
    Check(
        "REGION",
        lambda job: job.region_preference if job.region_required else None,
        lambda host, region: FEASIBLE if region is None or host.region == region else NEVER,
        _region_wish,
        lambda host: f"region {host.region or '(none)'}",
    ),
    Check(
        "SELECTOR",
        lambda job: job.selector,
        _selector,
        lambda job: ", ".join(f"{key}={value}" for key, value in job.selector) or "no labels",
        lambda host: ", ".join(f"{key}={value}" for key, value in sorted(host.labels.items())) or "no labels",
    ),
    Check(
        "SLOTS",
        _nothing,
        lambda host, _: _room(1, host.jobs, host.max_jobs),
        lambda _: "1 slot",
        lambda host: _free(host.jobs, host.max_jobs, _slots),
    ),
    Check(
        "MEMORY",
        lambda job: job.memory,
        lambda host, memory: _room(memory, host.memory, host.max_memory),
        lambda job: _mebibytes(job.memory),
        lambda host: _free(host.memory, host.max_memory, _mebibytes),
    ),
    Check(
        "CPU",
        lambda job: job.cpu,
        lambda host, cpu: _room(cpu, host.cpu, host.max_cpu),
        lambda job: cores(job.cpu),
        lambda host: _free(host.cpu, host.max_cpu, cores),
    ),
    Check(
        "RESERVED",
        lambda job: (job.priority, job.reserved_host),
        _reserved,
        lambda job: (
            "room that is free or reserved for this job"
            if job.reserved_host
            else f"room that is not reserved for another job; has priority {job.priority}"
        ),
        lambda host: (
            "not reserved"
            if host.reserved_priority is None
            else f"reserved for the job that has waited longest, of priority {host.reserved_priority}"
        ),
    ),
]

ROOM = frozenset({"SLOTS", "MEMORY", "CPU", "RESERVED"})
"""The checks that a host fails only until other jobs have ended."""


def register(check: Check) -> None:
    """Run a check in every decision from now on.

    Raises:
        ValueError: a check with this code exists already.
    """
    if any(known.code == check.code for known in CHECKS):
        raise ValueError(f"a check named {check.code} is registered already")
    CHECKS.append(check)


def feasible(host: HostState, job: JobRequirements, *codes: str) -> bool:
    """Whether the host passes the checks with these codes; all checks when no code is given."""
    return not any(check.test(host, check.need(job)) for check in CHECKS if not codes or check.code in codes)


def explain(host: HostState, job: JobRequirements, codes: tuple[str, ...], recorded: bytes) -> list[CheckResult]:
    """Recorded verdicts in words, including those of checks that this version no longer has."""
    known = {check.code: check for check in CHECKS}
    return [
        known[code].explain(host, job, verdict)
        if code in known
        else CheckResult(code, Verdict(verdict), "", "", "recorded by a check that is no longer registered")
        for code, verdict in zip(codes, recorded, strict=True)
    ]
