"""When a host counts as healthy, and for how long routing avoids one whose launches fail or whose quota is used up."""

from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple


class HealthStatus(StrEnum):
    """What the probes say about a host."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


UNHEALTHY_AFTER, HEALTHY_AFTER = 3, 2
"""Probes in a row that change a health that is known already."""

EJECTED_AFTER = 5
"""Failed launches in a row after which a host is ejected."""

EJECTION, LONGEST_EJECTION = timedelta(seconds=30), timedelta(minutes=5)
COOLDOWN, LONGEST_COOLDOWN = timedelta(seconds=30), timedelta(minutes=5)


class Probes(NamedTuple):
    """A host's health with the successes and failures in a row that led to it; one of the two counts is 0."""

    status: str
    successes: int
    failures: int


def after_probe(before: Probes, *, healthy: bool) -> Probes:
    """Count one probe. From UNKNOWN a single result decides, otherwise several in a row."""
    successes, failures = (before.successes + 1, 0) if healthy else (0, before.failures + 1)
    decides = before.status == HealthStatus.UNKNOWN or failures >= UNHEALTHY_AFTER or successes >= HEALTHY_AFTER
    if not decides:
        return Probes(before.status, successes, failures)
    return Probes(HealthStatus.HEALTHY if healthy else HealthStatus.UNHEALTHY, successes, failures)


def after_unanswered_launch(before: Probes) -> Probes:
    """Count a launch that got no answer like a failed probe, so that a dead host is avoided before its next probe."""
    failures = before.failures + 1
    return Probes(HealthStatus.UNHEALTHY if failures >= UNHEALTHY_AFTER else before.status, 0, failures)


def ejection(failed_launches: int, ejections: int) -> timedelta | None:
    """For how long a host is ejected after so many failed launches in a row; None when it is not.

    `ejections`: how often it was ejected since its last successful launch; each one lasts longer than the one before.
    """
    if failed_launches < EJECTED_AFTER:
        return None
    return min(EJECTION * (ejections + 1), LONGEST_EJECTION)


def cooldown(cooldowns: int) -> timedelta:
    """For how long routing avoids a host whose quota is used up, for the `cooldowns`-th time in a row."""
    return min(COOLDOWN * cooldowns, LONGEST_COOLDOWN)
