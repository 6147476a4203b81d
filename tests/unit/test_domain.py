"""The rules about jobs and hosts, as tables."""

from datetime import timedelta

import pytest

from container_manager.domain import capabilities, cloudrun_limits, host_health, retry
from container_manager.domain.host_health import HealthStatus, Probes
from container_manager.domain.lifecycle import ACTIVE, CLAIMED, TERMINAL, TRANSITIONS, JobStatus, sources

# ------------------------------------------------------------------ lifecycle


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(JobStatus)
    assert CLAIMED < ACTIVE
    assert not ACTIVE & TERMINAL


@pytest.mark.parametrize("terminal", sorted(TERMINAL))
def test_a_terminal_state_is_left_only_by_a_retry(terminal: JobStatus) -> None:
    assert TRANSITIONS[terminal] <= {JobStatus.PENDING}


def test_success_is_never_left() -> None:
    assert TRANSITIONS[JobStatus.SUCCEEDED] == frozenset()
    assert JobStatus.SUCCEEDED not in sources(JobStatus.PENDING)


def test_only_a_claimed_job_can_succeed() -> None:
    assert sources(JobStatus.SUCCEEDED) == CLAIMED


# ------------------------------------------------------------------ retries


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (10_000, 60)])
def test_the_back_off_doubles_up_to_a_minute(failures: int, seconds: float) -> None:
    assert retry.back_off(failures) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("attempt", "host_faults", "max_attempts", "seconds"),
    [
        (1, 0, 1, None),
        (1, 0, 2, 1),
        (2, 0, 2, None),
        # An attempt that a host has failed does not count.
        (3, 2, 2, 1),
        (4, 2, 2, None),
        (100, 99, 1, None),
    ],
)
def test_a_job_that_fails_by_itself_is_retried_within_its_attempts(
    attempt: int, host_faults: int, max_attempts: int, seconds: float | None
) -> None:
    delay = retry.after_own_failure(attempt, host_faults, max_attempts)
    assert delay == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("faults", "counted", "allowed", "exhausted", "seconds"),
    [
        (1, 1, 5, False, 1),
        (5, 5, 5, False, 16),
        (6, 6, 5, False, None),
        (6, 6, None, False, 32),
        (99, 1, 5, False, 60),
        (3, 0, None, True, 0),
        (1, 1, 0, False, None),
    ],
)
def test_a_job_that_hosts_fail_is_retried_within_the_installations_limit(
    faults: int, counted: int, allowed: int | None, exhausted: bool, seconds: float | None
) -> None:
    delay = retry.after_host_fault(faults, counted, allowed, at_once=exhausted)
    assert delay == (None if seconds is None else timedelta(seconds=seconds))


# ------------------------------------------------------------------ health


@pytest.mark.parametrize(
    ("results", "statuses"),
    [
        ("+", "healthy"),
        ("-", "unhealthy"),
        ("+--", "healthy healthy healthy"),
        ("+---", "healthy healthy healthy unhealthy"),
        ("+--+--", "healthy " * 6),
        ("-+-+", "unhealthy " * 4),
        ("-++", "unhealthy unhealthy healthy"),
    ],
)
def test_health_changes_after_several_probes_in_a_row(results: str, statuses: str) -> None:
    probes, seen = Probes(HealthStatus.UNKNOWN, 0, 0), []
    for result in results:
        probes = host_health.after_probe(probes, healthy=result == "+")
        seen.append(probes.status)
    # From UNKNOWN the first result decides.
    expected = statuses.split()
    assert seen[-len(expected) :] == expected


def test_launches_without_an_answer_make_a_host_unhealthy_but_never_healthy() -> None:
    probes = Probes(HealthStatus.HEALTHY, 9, 0)
    for expected in ("healthy", "healthy", "unhealthy", "unhealthy"):
        probes = host_health.after_unanswered_launch(probes)
        assert probes.status == expected
    assert probes.successes == 0
    assert host_health.after_unanswered_launch(Probes(HealthStatus.UNKNOWN, 0, 0)).status == "unknown"


@pytest.mark.parametrize(
    ("failed", "ejections", "seconds"), [(4, 0, None), (5, 0, 30), (5, 1, 60), (5, 9, 300), (5, 99, 300), (9, 0, 30)]
)
def test_failed_launches_eject_a_host_for_longer_each_time(failed: int, ejections: int, seconds: float | None) -> None:
    pause = host_health.ejection(failed, ejections)
    assert pause == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize(("times", "seconds"), [(1, 30), (2, 60), (10, 300), (11, 300)])
def test_an_exhausted_quota_is_avoided_for_longer_each_time(times: int, seconds: float) -> None:
    assert host_health.cooldown(times) == timedelta(seconds=seconds)


# ------------------------------------------------------------------ capabilities

PLAIN = {"image": "busybox", "memory_mb": 512, "cpu_millis": 1000, "timeout_seconds": 60, "environment": {}}


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, []),
        ({"image": "quay.io/team/app:1"}, ["cloudrun: registry quay.io"]),
        ({"image": "localhost:5000/app"}, ["cloudrun: registry localhost:5000"]),
        ({"image": "eu.gcr.io/project/app"}, []),
        ({"image": "europe-docker.pkg.dev/project/app"}, []),
        ({"cpu_millis": 8001}, ["cloudrun: size"]),
        ({"memory_mb": 32_769}, ["cloudrun: size"]),
        ({"timeout_seconds": 86_400}, []),
        ({"timeout_seconds": 86_401}, ["cloudrun: timeout-over-24h"]),
        ({"timeout_seconds": 604_801}, ["cloudrun: timeout-over-7d"]),
        ({"environment": {f"N{n}": "" for n in range(998)}}, []),
        ({"environment": {f"N{n}": "" for n in range(999)}}, ["cloudrun: variables"]),
        ({"environment": {"A": "é" * 16_384}}, []),
        ({"environment": {"A": "é" * 16_385}}, ["cloudrun: variable-size"]),
        ({"environment": {"PORT": "1", "K_SERVICE": "x"}}, ["cloudrun: reserved-variable K_SERVICE"]),
        ({"read_only_root": True}, ["cloudrun: read-only-root"]),
    ],
)
def test_what_exceeds_cloud_run_is_a_code(changes: dict, codes: list[str]) -> None:
    assert list(cloudrun_limits.exceeding(**PLAIN | changes)) == codes


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("user", "", "user"),
        ("network build", "", "network build"),
        ("cloudrun: registry quay.io", "cloudrun", "an image of quay.io, which is not docker.io, gcr.io or pkg.dev"),
        ("cloudrun: timeout-over-24h", "cloudrun", "a timeout of more than 24 hours"),
        ("cloudrun: size", "cloudrun", "more than 8 cores or 32768 MiB of memory"),
        ("cloudrun: reserved-variable PORT", "cloudrun", "the reserved environment variable PORT"),
        # Records of an earlier version have sentences.
        ("cloudrun: a read-only root", "cloudrun", "a read-only root"),
        # Records of a later version may have codes that this one does not know.
        ("cloudrun: of-tomorrow", "cloudrun", "of-tomorrow"),
    ],
)
def test_codes_are_described_in_words(code: str, kind: str, words: str) -> None:
    assert capabilities.executor_type_of(code) == kind
    assert capabilities.describe(code) == words
    assert capabilities.describe_with_type(code) == (f"{words} (if on {kind})" if kind else words)


def test_a_sentence_stored_by_an_earlier_version_is_read_as_its_code() -> None:
    codes = ["cloudrun: a timeout of more than 24 hours", "network build", "cloudrun: timeout-over-24h"]
    assert capabilities.current(codes) == ("cloudrun: timeout-over-24h", "network build")
