"""Distributions of durations."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.domain import histogram

durations = st.lists(st.floats(0.001, 1e7), min_size=1, max_size=50)


@given(durations, st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_right_within_6_percent(values: list[float], share: float) -> None:
    counts = Counter(histogram.class_of(value) for value in values)
    assert sum(counts.values()) == len(values)
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    assert histogram.quantile(counts, share) == pytest.approx(exact, rel=0.06)


def test_the_ends() -> None:
    assert histogram.quantile({}, 0.5) is None
    assert histogram.class_of(0) == histogram.class_of(-1) == "0"
    assert histogram.class_of(1e300) == histogram.class_of(1e12)
