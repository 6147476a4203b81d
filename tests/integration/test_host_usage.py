"""What becomes of hosts over time: their usage by minute and hour, and the end of draining."""

from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from container_manager import clock
from container_manager.domain.lifecycle import JobStatus
from container_manager.models import ContainerJob, ExecutorHost, HostUsage
from container_manager.store import host_usage
from container_manager.store.transaction import commit_one
from graphql_api.ids import to_global
from tests.api import host_mutation, make_hosts, make_job
from tests.client import Api
from tests.eventually import eventually
from tests.factories import ContainerJobFactory, ExecutorHostFactory
from tests.jobs import has_status

HISTORY = """query($id: ID!, $since: DateTime, $until: DateTime) { host(id: $id) { name history(since: $since, until: $until) {
    start runningJobs mostJobs reservedMemoryMb reservedCpuCores latencyMs } } }"""


FIGURES = {"jobs": 2, "most_jobs": 3, "memory_mb": 200, "cpu_cores": 1, "latency_ms": 4}


def _sample() -> None:
    for rows in host_usage.sample():
        commit_one(host_usage.store, rows)


@pytest.mark.django_db(transaction=True)
def test_samples_add_up_by_minute_and_by_hour() -> None:
    now = timezone.now().replace(minute=30, second=20)
    host = ExecutorHostFactory(health_latency_ms=3.0)
    ExecutorHostFactory(name="idle")
    with patch.object(clock, "now", lambda: now):
        ContainerJobFactory(host=host, status=JobStatus.RUNNING, memory_limit=100, cpu_limit=0.5)
        _sample()
        ContainerJobFactory.create_batch(2, host=host, status=JobStatus.RUNNING, memory_limit=100, cpu_limit=0.5)
        ExecutorHost.objects.filter(pk=host.pk).update(health_latency_ms=5.0)
        _sample()
        (minute,) = host_usage.between(host.pk, now - timedelta(hours=1), now)
        (hour,) = host_usage.between(host.pk, now - timedelta(days=30), now)
    assert minute == host_usage.Usage(start=now.replace(second=0, microsecond=0), **FIGURES)
    assert hour == host_usage.Usage(start=now.replace(minute=0, second=0, microsecond=0), **FIGURES)


async def test_a_client_reads_the_history_of_a_host(admin: Api) -> None:
    (host,) = await make_hosts(1)
    start = timezone.now().replace(second=0, microsecond=0) - timedelta(hours=3)
    values = {
        "samples": 2,
        "jobs": 4,
        "most_jobs": 3,
        "memory_mb": 400,
        "cpu_millis": 2000,
        "answers": 2,
        "latency_ms": 8,
    }
    await HostUsage.objects.acreate(host_id=host.pk, seconds=60, start=start, **values)
    pk, since, until = to_global("ExecutorHost", host.pk), start - timedelta(hours=1), start + timedelta(hours=1)
    (point,) = (await admin(HISTORY, id=pk, since=since.isoformat(), until=until.isoformat()))["history"]
    assert point == {
        "start": start.isoformat(), "runningJobs": 2, "mostJobs": 3, "reservedMemoryMb": 200, "reservedCpuCores": 1,
        "latencyMs": 4,
    }  # fmt: skip
    refused = await admin.error(HISTORY, id=pk, since=until.isoformat(), until=since.isoformat())
    assert refused["message"] == "since: must be before until, by at most 90 days."


@pytest.mark.django_db(transaction=True)
def test_old_usage_is_deleted() -> None:
    now = timezone.now()
    values: dict[str, Any] = dict.fromkeys(host_usage.COLUMNS[3:], 1)
    for seconds, age in (
        (60, timedelta(hours=13)),
        (60, timedelta(hours=1)),
        (3600, timedelta(days=91)),
        (3600, timedelta(days=2)),
    ):
        HostUsage.objects.create(host_id=1, seconds=seconds, start=now - age, **values)
    assert not commit_one(host_usage.delete_old, timedelta())
    assert sorted(HostUsage.objects.values_list("seconds", flat=True)) == [60, 3600]
    assert HostUsage.objects.filter(start__gt=now - timedelta(days=3)).count() == 2


async def test_a_drained_host_says_when_it_is_empty(admin: Api, sim: dict) -> None:
    job = await admin.submit()
    query = "subscription { routingEvents(filters: {kinds: [HOST_EMPTY]}) { hostName message host { emptySince } } }"
    async with admin.subscribe(query) as values:
        await admin(host_mutation("drainHost"), id=sim["id"])
        event = await anext(values)
    assert await has_status(admin, job["id"], "SUCCEEDED")
    assert (event["hostName"], event["message"]) == ("sim", "Host sim is drained and holds no job.")
    assert event["host"]["emptySince"] is not None
    await admin(host_mutation("resumeHost"), id=sim["id"])
    assert (await ExecutorHost.objects.aget()).empty_since is None


@pytest.mark.django_db(transaction=True)
async def test_the_minute_or_hour_in_which_a_range_begins_belongs_to_it() -> None:
    hour = (timezone.now() - timedelta(days=1)).replace(minute=0, second=0, microsecond=0)
    minute = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=30)
    values: dict[str, Any] = dict.fromkeys(host_usage.COLUMNS[3:], 1)

    def starts() -> list[list[Any]]:
        for seconds, start in ((3600, hour), (60, minute)):
            HostUsage.objects.create(host_id=1, seconds=seconds, start=start, **values)
        ranges = [
            (hour + timedelta(minutes=20), hour + timedelta(minutes=40)),
            (minute + timedelta(seconds=30), timezone.now()),
        ]
        return [[usage.start for usage in host_usage.between(1, *wanted)] for wanted in ranges]

    assert await sync_to_async(starts)() == [[hour], [minute]]


async def test_a_host_is_empty_again_after_it_was_resumed(admin: Api, sim: dict) -> None:
    kinds = "subscription { routingEvents(filters: {kinds: [HOST_EMPTY]}) { hostName } }"
    async with admin.subscribe(kinds) as values:
        await admin(host_mutation("drainHost"), id=sim["id"])
        await anext(values)
        # As a process of an earlier version does it, which leaves `empty_since` as it was.
        await ExecutorHost.objects.aupdate(is_draining=False)
        await admin.submit()
        await eventually(_was_forgotten)
        await admin(host_mutation("drainHost"), id=sim["id"])
        await anext(values)


async def _was_forgotten() -> bool:
    return (await ExecutorHost.objects.aget()).empty_since is None


async def test_a_host_is_not_empty_while_it_holds_a_job(admin: Api) -> None:
    # Of another node, so that no loop of this process runs the job.
    (host,) = await make_hosts(1, is_draining=True, executor_type="docker", config={"node": "elsewhere"})
    job = await make_job(host=host, status=JobStatus.RUNNING)

    def record() -> int:
        commit_one(host_usage.record_empty, None)
        return ExecutorHost.objects.exclude(empty_since=None).count()

    assert await sync_to_async(record)() == 0
    await ContainerJob.objects.filter(pk=job.pk).aupdate(status=JobStatus.SUCCEEDED)
    assert await sync_to_async(record)() == 1
    assert await sync_to_async(record)() == 1
    query = "{ routingEvents(filters: {kinds: [HOST_EMPTY]}) { edges { node { hostName } } } }"
    assert [edge["node"]["hostName"] for edge in (await admin(query))["edges"]] == [host.name]
