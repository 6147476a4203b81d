"""Where the factory sends jobs, and why."""

import asyncio
import logging
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import pytest
from asgiref.sync import sync_to_async
from django.db.backends.utils import CursorWrapper

from container_manager.errors import Conflict, NotFound
from container_manager.executors.exceptions import ExecutorConfigurationError, ExecutorResourceError
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import ContainerJob, RoutingDecision, RoutingEvent
from container_manager.routing import router
from container_manager.store import decisions, threads
from container_manager.store.hosts import state
from tests.factories import ContainerJobFactory, ExecutorHostFactory
from tests.stand_ins import executor_stand_in

make_host = sync_to_async(ExecutorHostFactory)
make_hosts = sync_to_async(ExecutorHostFactory.create_batch)
make_job = sync_to_async(ContainerJobFactory)


# ------------------------------------------------------------------ choosing


async def test_the_choice_is_by_weight() -> None:
    hosts = [await make_host(routing_weight=weight) for weight in (10, 30, 60)]
    with patch("random.choices", return_value=[hosts[1]]) as choices:
        assert await ExecutorFactory().route_job_to_host(ContainerJobFactory.build()) == hosts[1]
    choices.assert_called_once()
    assert choices.call_args.args[0] == hosts
    assert choices.call_args.kwargs["weights"] == [10, 30, 60]


async def test_weights_are_respected_over_many_draws() -> None:
    light, heavy = await make_host(routing_weight=25), await make_host(routing_weight=75)
    factory, job = ExecutorFactory(), ContainerJobFactory.build()
    drawn = Counter([(await factory.route_job_to_host(job)).pk for _ in range(400)])
    # 400 draws at 3/4: five standard deviations are 43.
    assert 257 <= drawn[heavy.pk] <= 343
    assert drawn[light.pk] == 400 - drawn[heavy.pk]


async def test_without_hosts_there_is_none() -> None:
    await make_hosts(2, is_active=False)
    assert await ExecutorFactory().route_job_to_host(ContainerJobFactory.build()) is None


async def test_resources_decide_who_is_asked() -> None:
    await make_host(max_memory_mb=512, max_cpu_cores=1.0)
    large = await make_host(max_memory_mb=2048, max_cpu_cores=4.0)
    job = ContainerJobFactory.build(memory_limit=1024, cpu_limit=2.0)
    factory = ExecutorFactory()
    assert await factory.route_job_to_host(job) == large
    with patch.object(factory, "_check_resource_availability", side_effect=lambda host, _: host != large):
        assert await factory.route_job_to_host(job) != large


async def test_resources_in_use_count() -> None:
    busy = await make_host(max_memory_mb=1024)
    await make_job(host=busy, status="running", memory_limit=1000)
    job = ContainerJobFactory.build(memory_limit=100)
    factory = ExecutorFactory()
    assert await factory.route_job_to_host(job) is None
    free = await make_host(max_memory_mb=1024)
    assert await factory.route_job_to_host(job) == free


async def test_the_preferred_region_comes_first_and_a_required_one_alone() -> None:
    us, eu = await make_host(region="us-central1"), await make_host(region="europe-west1")
    factory = ExecutorFactory()
    wish = ContainerJobFactory.build(region_preference="us-central1")
    assert {(await factory.route_job_to_host(wish)).pk for _ in range(20)} == {us.pk}
    with patch.object(factory, "_matches_geographic_constraints", side_effect=lambda host, _: host.region != us.region):
        assert await factory.route_job_to_host(wish) == eu
    elsewhere = ContainerJobFactory.build(region_preference="mars")
    assert await factory.route_job_to_host(elsewhere) in {us, eu}
    must = ContainerJobFactory.build(region_preference="mars", region_required=True)
    assert await factory.route_job_to_host(must) is None


async def test_a_selector_is_a_must() -> None:
    await make_host()
    gpu = await make_host(labels={"gpu": "a100", "disk": "ssd"})
    job = ContainerJobFactory.build(host_selector={"gpu": "a100"})
    assert await ExecutorFactory().route_job_to_host(job) == gpu


async def test_weight_zero_is_the_last_resort() -> None:
    resort, normal = await make_host(routing_weight=0), await make_host(routing_weight=1, max_concurrent_jobs=1)
    factory, job = ExecutorFactory(), ContainerJobFactory.build()
    assert {(await factory.route_job_to_host(job)).pk for _ in range(20)} == {normal.pk}
    await make_job(host=normal, status="running")
    assert await factory.route_job_to_host(job) == resort


@pytest.mark.parametrize(("strategy", "expected"), [("balanced", "idle"), ("packed", "busy")])
async def test_strategies_choose_by_load(strategy: str, expected: str) -> None:
    await make_host(name="idle")
    busy = await make_host(name="busy")
    await make_job(host=busy, status="running")
    job = ContainerJobFactory.build(strategy=strategy)
    factory = ExecutorFactory()
    assert {(await factory.route_job_to_host(job)).name for _ in range(10)} == {expected}


# ------------------------------------------------------------------ executor types


async def test_the_preferred_executor_is_taken_and_named() -> None:
    await make_host(executor_type="docker")
    await make_host(executor_type="cloudrun")
    job = await make_job(preferred_executor="docker")
    factory = ExecutorFactory()
    with patch.object(factory, "_is_executor_available", return_value=True):
        assert await factory.route_job_to_executor_type(job) == "docker"
    assert "Preferred executor" in job.routing_reason
    stored = await ContainerJob.objects.select_related("host").aget(pk=job.pk)
    assert (stored.status, stored.executor_type, stored.host.executor_type) == ("routed", "docker", "docker")
    assert stored.routing_reason == job.routing_reason


async def test_a_job_that_is_not_saved_only_gets_the_attributes() -> None:
    host = await make_host()
    job = ContainerJobFactory.build()
    assert await ExecutorFactory().route_job_to_executor_type(job) == "simulated"
    assert (job.pk, job.host, job.executor_type) == (None, host, "simulated")
    assert job.routing_reason
    assert not await ContainerJob.objects.aexists()


async def test_fallback_to_another_executor_says_so() -> None:
    await make_host(executor_type="docker", is_active=False)
    cloudrun = await make_host(executor_type="cloudrun")
    job = ContainerJobFactory.build(preferred_executor="docker")
    factory = ExecutorFactory()
    with (
        patch.object(factory, "_is_executor_available", side_effect=lambda kind: kind == "cloudrun"),
        patch.object(factory, "route_job_to_host", return_value=cloudrun),
    ):
        assert await factory.route_job_to_executor_type(job) == "cloudrun"
    assert "docker is not available" in job.routing_reason


async def test_a_required_executor_has_no_fallback() -> None:
    await make_host()
    job = ContainerJobFactory.build(preferred_executor="docker", executor_required=True)
    with pytest.raises(ExecutorResourceError, match="requires docker"):
        await ExecutorFactory().route_job_to_executor_type(job)


async def test_exhaustion_is_a_resource_error() -> None:
    await make_host()
    factory = ExecutorFactory()
    for route in (factory.route_job_to_executor_type, factory.route_job_dry_run):
        with (
            patch.object(factory, "_is_executor_available", return_value=False),
            pytest.raises(ExecutorResourceError),
        ):
            await route(ContainerJobFactory.build())


async def test_configuration_errors_are_raised() -> None:
    factory = ExecutorFactory()
    with (
        patch.object(factory, "get_available_hosts", side_effect=ExecutorConfigurationError("Config error")),
        pytest.raises(ExecutorConfigurationError),
    ):
        await factory.route_job_to_host(ContainerJobFactory.build())


async def test_database_errors_are_raised() -> None:
    with (
        patch("container_manager.models.ExecutorHost.objects.filter", side_effect=OSError("Database connection error")),
        pytest.raises(OSError, match="Database connection error"),
    ):
        await ExecutorFactory().route_job_to_host(ContainerJobFactory.build())


async def test_a_decision_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    host = await make_host()
    with caplog.at_level(logging.INFO, "container_manager.executors.factory"):
        await ExecutorFactory().route_job_to_executor_type(ContainerJobFactory.build())
    (record,) = [record for record in caplog.records if record.name == "container_manager.executors.factory"]
    assert "routing" in record.msg
    assert host.name in record.getMessage()


async def test_a_dry_run_writes_nothing() -> None:
    await make_host()
    job = await make_job()
    assert await ExecutorFactory().route_job_dry_run(job) == "simulated"
    await job.arefresh_from_db()
    assert (job.status, job.host_id, job.routing_reason) == ("pending", None, "")
    assert not await RoutingEvent.objects.aexists()


async def test_a_reservation_is_recorded_with_all_hosts_and_replays() -> None:
    await make_host(is_active=False, name="inactive")
    await make_host(executor_type="docker", name="silent", config={"url": "unix:///no/such.sock"})
    chosen = await make_host(name="chosen")
    job = await make_job()
    await ExecutorFactory().route_job_to_executor_type(job)
    decision = await RoutingDecision.objects.aget(job_id=job.pk)
    recorded = (await threads.read(decisions.evaluations, [decision.evaluation_id]))[decision.evaluation_id]
    verdicts = decisions.verdicts(recorded.evaluation, decision.host_id, 0, 10)
    assert [(v.host_name, v.verdict.name) for v in verdicts] == [
        ("chosen", "FEASIBLE"), ("inactive", "NOT_NOW"), ("silent", "FEASIBLE"),
    ]  # fmt: skip
    assert verdicts[0].host_id == chosen.pk
    assert decisions.replay(decision, recorded) == "SAME"


async def test_room_taken_in_between_is_not_given_twice() -> None:
    host = await make_host(max_concurrent_jobs=1)
    job = await make_job()
    factory = ExecutorFactory()
    await make_job(host=host, status="running")
    with (
        patch.object(factory, "_is_executor_available", return_value=True),
        patch.object(factory, "route_job_to_host", return_value=host),
        pytest.raises(ExecutorResourceError),
    ):
        await factory.route_job_to_executor_type(job)
    await job.arefresh_from_db()
    assert job.status == "pending"


# ------------------------------------------------------------------ batches


async def test_a_batch_reserves_records_and_never_overcommits() -> None:
    hosts = [await make_host(max_concurrent_jobs=3), await make_host(max_memory_mb=128)]
    jobs = [await make_job(memory_limit=64) for _ in range(8)]
    placed = await ExecutorFactory().route_jobs(jobs)
    assert [decision.key for decision in placed] == [job.pk for job in jobs]
    counts = Counter(decision.host.id for decision in placed if decision.host)
    assert counts == {hosts[0].pk: 3, hosts[1].pk: 2}
    assert [decision.host for decision in placed[5:]] == [None] * 3
    assert await ContainerJob.objects.filter(status="routed").acount() == 5
    assert await RoutingDecision.objects.acount() == 8


async def test_the_batch_and_the_single_method_agree() -> None:
    """With the same uniform numbers, `random.choices` and the core's draws choose the same hosts."""
    hosts = [await make_host(routing_weight=weight, max_concurrent_jobs=100) for weight in (5, 20, 75, 0)]
    factory = ExecutorFactory()
    fleet = [state(host) for host in hosts]
    job = ContainerJobFactory.build()
    evaluation = router.evaluate(fleet, job.requirements(), seed=42)
    batch = router.choose(evaluation, 30)
    generator = random.Random(42)
    for expected in batch:
        uniform = generator.random()
        with patch("random.choices", _choices(uniform)):
            assert (await factory.route_job_to_host(job)).pk == fleet[expected].id


def _choices(uniform: float):
    generator = random.Random()
    generator.random = lambda: uniform
    return generator.choices


async def test_a_batch_names_what_cannot_be_routed() -> None:
    await make_host()
    ended, pending = await make_job(status="succeeded"), await make_job()
    factory = ExecutorFactory()
    with pytest.raises(Conflict, match="SUCCEEDED"):
        await factory.route_jobs([ended, pending])
    await pending.arefresh_from_db()
    assert pending.status == "routed"
    with pytest.raises(NotFound):
        await factory.route_jobs([ContainerJob(pk=987654)])


# ------------------------------------------------------------------ executors, queries, concurrency


async def test_executors_are_cached_and_invalidated() -> None:
    host = await make_host(executor_type="docker")
    factory = ExecutorFactory()
    with patch("container_manager.executors.docker.DockerExecutor") as docker:
        docker.side_effect = _closable
        first = factory.get_executor(host)
        assert factory.get_executor(host) is first
        assert factory.get_executor(ContainerJob(host=host)) is first
        docker.assert_called_once()
        factory.invalidate_executor_cache(host)
        assert factory.get_executor(host) is not first
        assert docker.call_count == 2
    await factory.aclose()
    first.aclose.assert_awaited_once()


def _closable(settings):
    return executor_stand_in(settings=settings)


async def test_an_instance_read_before_a_change_never_brings_the_old_config_back() -> None:
    factory = ExecutorFactory()
    old = await make_host(config={"accept": "any", "run_ms": 1})
    new = await sync_to_async(type(old).objects.get)(pk=old.pk)
    new.config, new.config_version = {"accept": "any", "run_ms": 999}, 1
    first = factory.get_executor(old)
    second = factory.get_executor(new)
    assert second is not first
    assert factory.get_executor(old) is second
    await factory.aclose()


def test_executors_are_cached_without_a_loop_too() -> None:
    host = ExecutorHostFactory()
    factory = ExecutorFactory()
    assert factory.get_executor(host) is factory.get_executor(host)
    factory.invalidate_executor_cache(host)


async def test_a_job_without_a_host_has_no_executor() -> None:
    with pytest.raises(ExecutorConfigurationError, match="not been routed"):
        ExecutorFactory().get_executor(ContainerJobFactory.build())


async def test_a_bad_config_names_its_key() -> None:
    host = await make_host(executor_type="docker", config={"urll": "unix:///x"})
    with pytest.raises(ExecutorConfigurationError, match=r"config\.urll: is not a setting"):
        ExecutorFactory().get_executor(host)


async def test_two_queries_read_a_hundred_hosts() -> None:
    await make_hosts(100)
    factory, job = ExecutorFactory(), ContainerJobFactory.build()
    assert await factory.route_job_to_host(job) is not None, "this reads the usage of all hosts"
    statements = []
    execute = CursorWrapper.execute

    def count(self, sql, params=None):
        statements.append(sql)
        return execute(self, sql, params)

    with patch.object(CursorWrapper, "execute", count):
        assert await factory.route_job_to_host(job) is not None
    assert len(statements) == 2, statements


def test_routing_from_threads_is_safe() -> None:
    host = ExecutorHostFactory()
    factory = ExecutorFactory()
    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(asyncio.run, factory.route_job_to_host(ContainerJobFactory.build())) for _ in range(10)]
        assert [future.result() for future in futures] == [host] * 10


async def test_routing_from_tasks_never_overcommits() -> None:
    await make_host(max_concurrent_jobs=7)
    jobs = [await make_job() for _ in range(20)]
    factory = ExecutorFactory()

    async def route(job: ContainerJob) -> bool:
        try:
            await factory.route_job_to_executor_type(job)
        except ExecutorResourceError:
            return False
        return True

    assert sum(await asyncio.gather(*map(route, jobs))) == 7
    assert await ContainerJob.objects.filter(status="routed").acount() == 7
