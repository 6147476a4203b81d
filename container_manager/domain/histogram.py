"""Distributions of durations, as counts by exponential classes, from which quantiles are read within 6 %."""

import math
from collections.abc import Mapping

LEAST, FACTOR = 0.001, 1.12
"""Seconds up to which the first class goes, and how much longer each following one is."""

_LAST = round(math.log(10**9 / LEAST) / math.log(FACTOR))

Counts = Mapping[str, int]
"""How many durations each class has, by its number as text, because it is stored as JSON."""


def class_of(seconds: float) -> str:
    """The number of the class that has this duration."""
    return str(min(max(math.ceil(math.log(max(seconds, LEAST) / LEAST) / math.log(FACTOR)), 0), _LAST))


def quantile(counts: Counts, share: float) -> float | None:
    """The duration in seconds that this share of all does not exceed; None when there is none."""
    total = sum(counts.values())
    if not total:
        return None
    before = 0
    for number in sorted(counts, key=int):
        before += counts[number]
        if before >= share * total:
            return LEAST * math.pow(FACTOR, int(number) - 0.5)
    return None
