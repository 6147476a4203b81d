"""Statistics of jobs: each is counted once, also after errors, and the same as by a plain count."""

from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from container_manager.domain.kinds import EventKind
from container_manager.models import ContainerJob, Installation, JobAttempt, JobStatistics, RoutingEvent
from container_manager.store import attempts, statistics
from container_manager.store.statistics import Dimension
from container_manager.store.transaction import Actor, Transaction, commit_one
from tests.api import make_hosts
from tests.client import CREATE_HOST, Api
from tests.eventually import eventually
from tests.factories import ContainerJobFactory, ExecutorHostFactory

FIGURES = """submitted refused started succeeded failed timedOut cancelled failures { reason attempts }
    queueTime { count p50 p99 } launchTime { count } runTime { count p50 p90 p95 p99 }"""
STATS = f"""query($since: DateTime, $until: DateTime, $buckets: Int!) {{
    jobStats(since: $since, until: $until, buckets: $buckets) {{
        since until bucketSeconds total {{ {FIGURES} }} buckets {{ start figures {{ succeeded failed }} }}
        unfinished {{ pending routed launching running }}
        hosts: groups(by: HOST) {{ key figures {{ succeeded failed }} }}
        types: groups(by: EXECUTOR_TYPE) {{ key figures {{ succeeded }} }}
        regions: groups(by: REGION) {{ key figures {{ succeeded }} }}
        images: groups(by: IMAGE) {{ key figures {{ succeeded failed }} }}
        teams: groups(by: LABEL, label: "team") {{ key figures {{ succeeded failed }} }} }} }}"""


async def test_what_happens_is_counted(admin: Api, sim: dict) -> None:
    await admin(
        CREATE_HOST,
        input={"name": "eu", "executorType": "SIMULATED", "region": "eu", "config": {"accept": "any", "run_ms": 1}},
    )
    await admin("mutation($id: ID!) { drainHost(id: $id) { __typename } }", id=sim["id"])
    for team in ("a", "b", "b"):
        await admin.submit(image="good", labels={"team": team})
    await admin.submit(image="bad", command=["exit 3"], maxAttempts=2, labels={"team": "b"})
    await admin.submit(image="never", hostSelector={"gpu": "yes"})

    async def counted() -> dict[str, Any] | None:
        found = await admin(STATS, buckets=4)
        ended = found["total"]["succeeded"] + found["total"]["failed"]
        return found if ended == 5 else None

    found = await eventually(counted, 30)
    total = found["total"]
    assert (total["submitted"], total["refused"], total["started"]) == (5, 1, 5)
    assert (total["succeeded"], total["failed"]) == (3, 2)
    assert total["failures"] == [{"reason": "EXIT_CODE", "attempts": 2}]
    assert total["queueTime"]["count"] == total["runTime"]["count"] == total["launchTime"]["count"] == 5
    assert 0 <= total["runTime"]["p50"] <= total["runTime"]["p99"] < 30
    assert found["unfinished"] == {"pending": 1, "routed": 0, "launching": 0, "running": 0}
    assert found["hosts"] == [{"key": "eu", "figures": {"succeeded": 3, "failed": 2}}]
    assert found["types"] == [{"key": "simulated", "figures": {"succeeded": 3}}]
    assert found["regions"] == [{"key": "eu", "figures": {"succeeded": 3}}]
    assert {group["key"]: group["figures"]["succeeded"] for group in found["images"]} == {"good": 3, "bad": 0}
    assert [(group["key"], *group["figures"].values()) for group in found["teams"]] == [("b", 2, 2), ("a", 1, 0)]
    assert found["bucketSeconds"] == 900
    assert sum(bucket["figures"]["succeeded"] for bucket in found["buckets"]) == 3
    now = timezone.now()
    days = await admin(STATS, buckets=7, since=(now - timedelta(days=7)).isoformat(), until=now.isoformat())
    assert (days["bucketSeconds"], days["total"]["succeeded"], len(days["buckets"])) == (86_400, 3, 7)


async def test_statistics_are_followed_live(admin: Api, sim: dict) -> None:
    query = "subscription { jobStats(lastMinutes: 5, buckets: 5) { bucketSeconds buckets { start } total { submitted } unfinished { pending } } }"
    async with admin.subscribe(query) as values:
        first = await anext(values)
        assert (first["total"]["submitted"], first["bucketSeconds"], len(first["buckets"])) == (0, 60, 5)
        await admin.submit()
        while (await anext(values))["total"]["submitted"] != 1:
            pass


def _ended(count: int, **values: Any) -> None:
    """Events of jobs that have ended, as the transactions of workers write them."""
    now = timezone.now()
    host = ExecutorHostFactory()
    for at in range(count):
        job = ContainerJobFactory(
            status="succeeded", host=host, executor_type="simulated", queued_at=now, routed_at=now + timedelta(seconds=1),
            started_at=now + timedelta(seconds=3), finished_at=now + timedelta(seconds=13), image=f"image-{at}", **values,
        )  # fmt: skip
        commit_one(_finish, job)


def _finish(tx: Transaction, items: list[ContainerJob]) -> list[None]:
    for job in items:
        tx.event(EventKind.JOB_FINISHED, "", job=job, host=job.host)
    return [None] * len(items)


@pytest.fixture
def installation(db: None) -> Installation:
    return Installation.objects.create(instance="i", canary=b"")


def _total() -> dict[str, int]:
    now = timezone.now()
    found = statistics.series(now - timedelta(hours=1), now + timedelta(minutes=1), 1)
    (figures,) = found.steps.values()
    return dict(figures.counts)


@pytest.mark.usefixtures("installation")
def test_nothing_is_counted_twice() -> None:
    _ended(7)
    with patch.object(statistics, "COUNTED_AT_ONCE", 3):
        first = statistics.collect()
        assert first is not None
        assert commit_one(statistics.store, first)
        assert not commit_one(statistics.store, first), "another process has added it"
        counted = [first]
        while (found := statistics.collect()) is not None:
            commit_one(statistics.store, found)
            counted.append(found)
    assert [found.more for found in counted] == [True, True, False]
    assert _total()["succeeded"] == 7
    now = timezone.now()
    ((key, figures),) = statistics.groups(now - timedelta(hours=1), now, Dimension.EXECUTOR_TYPE, "", 5)
    assert (key, figures.counts["succeeded"]) == ("simulated", 7)
    assert {name: sum(counts.values()) for name, counts in figures.distributions.items()} == {
        "failures": 0, "queued": 7, "launched": 7, "ran": 7,
    }  # fmt: skip


@pytest.mark.usefixtures("installation")
def test_many_images_and_labels_are_counted_together() -> None:
    _ended(5, labels={"id": "x", "run": "y"})
    with patch.object(statistics, "MOST_KEYS", 2):
        found = statistics.collect()
        assert found is not None
        commit_one(statistics.store, found)
    now = timezone.now()
    images = statistics.groups(now - timedelta(hours=1), now, Dimension.IMAGE, "", 10)
    assert {key: figures.counts["succeeded"] for key, figures in images} == {"(others)": 3, "image-0": 1, "image-1": 1}


@pytest.mark.usefixtures("installation")
def test_an_attempt_that_was_followed_by_another_is_counted_by_its_own_times() -> None:
    _ended(1)
    job = ContainerJob.objects.get()
    JobAttempt.objects.create(
        job_id=job.pk, attempt=1, status="failed", failure="out_of_memory",
        started_at=job.started_at, finished_at=job.finished_at,
    )  # fmt: skip
    ContainerJob.objects.update(attempt=2, status="pending", started_at=None, finished_at=None)
    found = statistics.collect()
    assert found is not None
    commit_one(statistics.store, found)
    assert (_total()["failed"], _total()["succeeded"]) == (1, 0)


@pytest.mark.usefixtures("installation")
def test_an_attempt_that_its_host_has_failed_is_counted_once() -> None:
    _ended(1)
    job = ContainerJob.objects.get()
    ContainerJob.objects.update(status="failed", failure="host_fault")
    job.refresh_from_db()
    commit_one(_retry, (job, None))
    # The end of the second attempt has an event, so the retry that a client asks for is no other end.
    ContainerJob.objects.update(status="failed", failure="exit_code", finished_at=timezone.now())
    job.refresh_from_db()
    commit_one(_finish, job)
    commit_one(_retry, (job, Actor("ci")))
    RoutingEvent.objects.filter(attempt=1, kind=EventKind.JOB_FINISHED).delete()
    found = statistics.collect()
    assert found is not None
    commit_one(statistics.store, found)
    total = _total()
    assert (total["failed"], total["succeeded"]) == (2, 0)


def _retry(tx: Transaction, items: list[Any]) -> list[None]:
    for job, actor in items:
        attempts.open_next(tx, job, "again", actor=actor)
    return [None] * len(items)


@pytest.mark.usefixtures("installation")
def test_an_end_by_an_earlier_version_is_counted() -> None:
    _ended(2)
    RoutingEvent.objects.update(attempt=None)
    found = statistics.collect()
    assert found is not None
    commit_one(statistics.store, found)
    assert _total()["succeeded"] == 2


@pytest.mark.usefixtures("installation")
def test_labels_are_told_apart() -> None:
    for labels in ({"team": "a"}, {"Team": "b"}, {"team=a": "c"}):
        _ended(1, labels=labels)
    with patch.object(statistics, "MOST_KEYS", 1):
        found = statistics.collect()
        assert found is not None
        commit_one(statistics.store, found)
    now = timezone.now()
    groups = {
        name: [key for key, _ in statistics.groups(now - timedelta(hours=1), now, Dimension.LABEL, name, 5)]
        for name in ("team", "Team", "team=a")
    }
    assert groups == {"team": ["a"], "Team": ["b"], "team=a": ["c"]}


@pytest.mark.usefixtures("installation")
def test_old_statistics_are_deleted() -> None:
    old = timezone.now() - timedelta(days=3)
    for seconds in (60, 3600):
        JobStatistics.objects.create(seconds=seconds, start=old, dimension="all")
    assert commit_one(statistics.delete_old, timedelta()) is False
    assert [row.seconds for row in JobStatistics.objects.all()] == [3600]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("buckets: 0", "buckets: must be from 1 to 500."),
        ('since: "2020-01-01"', "since: must be before until"),
        ('since: "2026-11-01", until: "2026-10-31"', "since: must be before until"),
        ('until: "9999-12-31T23:59:59-14:00"', "lies outside of the calendar"),
    ],
)
async def test_a_bad_range_is_named(admin: Api, arguments: str, message: str) -> None:
    error = await admin.error(f"{{ jobStats({arguments}) {{ bucketSeconds }} }}")
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert message in error["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("by: LABEL", "is needed for LABEL"),
        ('by: HOST, label: "x"', "only for it"),
        ("by: HOST, first: 1000", "first:"),
    ],
)
async def test_a_bad_group_is_named(admin: Api, arguments: str, message: str) -> None:
    await make_hosts(1)
    answer = await admin.post(f"{{ jobStats {{ groups({arguments}) {{ key }} }} }}")
    assert message in answer["errors"][0]["message"]


async def test_a_year_is_answered_from_few_rows(admin: Api) -> None:
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    rows = [
        JobStatistics(seconds=3600, start=now - timedelta(hours=at), dimension="all", succeeded=at, ran={"70": at})
        for at in range(24 * 365)
    ]
    await sync_to_async(JobStatistics.objects.bulk_create)(rows)
    since = (now - timedelta(days=365)).isoformat()
    found = await admin(STATS, since=since, until=now.isoformat(), buckets=52)
    assert found["total"]["succeeded"] == sum(range(1, 24 * 365))
    assert len(found["buckets"]) <= 53
