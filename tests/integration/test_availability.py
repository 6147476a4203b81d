"""Which executors and hosts are available, and who says so."""

import asyncio
from datetime import timedelta
from unittest.mock import AsyncMock, patch

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from container_manager.domain.host_health import HealthStatus
from container_manager.executors.exceptions import ExecutorConfigurationError, ExecutorConnectionError
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import ExecutorHost
from tests.factories import ContainerJobFactory, ExecutorHostFactory
from tests.stand_ins import executor_stand_in

make_host = sync_to_async(ExecutorHostFactory)
make_job = sync_to_async(ContainerJobFactory)


def executor(*, healthy: bool = True, slots: int = 5) -> AsyncMock:
    capacity = {"max_jobs": 5, "current_jobs": 5 - slots, "available_slots": slots}
    return executor_stand_in(health_check=healthy, get_capacity_info=capacity)


async def test_a_type_with_a_healthy_executor_is_available() -> None:
    factory = ExecutorFactory()
    host = await make_host(last_health_check=timezone.now())
    with patch.object(factory, "get_executor", return_value=executor()) as get_executor:
        assert await factory._is_executor_available(host.executor_type)
    get_executor.return_value.health_check.assert_awaited_once()


async def test_a_type_whose_executor_says_no_is_not_available() -> None:
    factory = ExecutorFactory()
    host = await make_host(last_health_check=timezone.now() - timedelta(hours=2))
    with patch.object(factory, "get_executor", return_value=executor(healthy=False)):
        assert not await factory._is_executor_available(host.executor_type)


async def test_a_type_with_only_inactive_hosts_is_not_available() -> None:
    host = await make_host(is_active=False)
    assert not await ExecutorFactory()._is_executor_available(host.executor_type)


async def test_a_configuration_error_makes_a_type_unavailable() -> None:
    factory = ExecutorFactory()
    host = await make_host()
    with patch.object(factory, "get_executor", side_effect=ExecutorConfigurationError("Config error")):
        assert not await factory._is_executor_available(host.executor_type)


async def test_a_full_host_is_not_available_by_the_job_rows() -> None:
    host = await make_host(max_concurrent_jobs=5)
    for _ in range(5):
        await make_job(host=host, status="running")
    factory = ExecutorFactory()
    with patch.object(factory, "get_executor", return_value=executor(slots=5)):
        assert not await factory._is_executor_available(host.executor_type)


async def test_a_full_executor_is_not_available_by_its_own_word() -> None:
    host = await make_host(max_concurrent_jobs=5)
    factory = ExecutorFactory()
    with patch.object(factory, "get_executor", return_value=executor(slots=0)):
        assert not await factory._is_executor_available(host.executor_type)


async def test_one_available_host_is_enough() -> None:
    await make_host(config={"accept": "any", "healthy": False})
    host = await make_host()
    factory = ExecutorFactory()
    assert await factory._is_executor_available(host.executor_type)


async def test_a_hanging_host_delays_no_other() -> None:
    factory = ExecutorFactory()
    hosts = [await make_host() for _ in range(5)]
    hanging = await make_host()
    answered: list[int] = []
    at_the_deadline: list[int] = []

    def get_executor(host: ExecutorHost) -> AsyncMock:
        async def health_check() -> bool:
            if host.pk != hanging.pk:
                answered.append(host.pk)
                return True
            try:
                await asyncio.Event().wait()
            finally:
                at_the_deadline.extend(answered)
            raise AssertionError

        stand_in = executor()
        stand_in.health_check.side_effect = health_check
        return stand_in

    with (
        patch.object(factory, "get_executor", get_executor),
        patch("container_manager.executors.probe.configuration.current") as current,
    ):
        current().probe_timeout_seconds = 0.2
        reports = await factory.check_health([hanging, *hosts])
    assert set(at_the_deadline) == {host.pk for host in hosts}, "the others had answered before its deadline"
    assert {reports[host.pk].status for host in hosts} == {HealthStatus.HEALTHY}
    assert reports[hanging.pk].error == "No answer within 0.2 s."


async def test_a_probe_reports_every_kind_of_error() -> None:
    factory = ExecutorFactory()
    hosts = [await make_host() for _ in range(3)]
    broken = {hosts[0].pk: RuntimeError("no such thing"), hosts[1].pk: ExecutorConnectionError("unplugged")}

    def get_executor(host: ExecutorHost) -> AsyncMock:
        stand_in = executor()
        stand_in.health_check.side_effect = broken.get(host.pk)
        return stand_in

    with patch.object(factory, "get_executor", get_executor):
        reports = await factory.check_health(hosts)
    assert reports[hosts[0].pk].error == "The probe failed unexpectedly; the log of this service has the cause."
    assert reports[hosts[1].pk].error == "unplugged"
    assert reports[hosts[2].pk].healthy


async def test_check_health_takes_all_hosts_when_none_is_named() -> None:
    hosts = [await make_host() for _ in range(3)]
    assert set(await ExecutorFactory().check_health()) == {host.pk for host in hosts}


async def test_capacity_is_counted_from_the_job_rows() -> None:
    host = await make_host(max_concurrent_jobs=5)
    await make_host(max_concurrent_jobs=3)
    await make_host(max_concurrent_jobs=7, is_active=False)
    await make_job(host=host, status="running")
    await make_job(host=host, status="routed")
    await make_job(host=host, status="succeeded")
    capacity = await ExecutorFactory().get_executor_capacity("simulated")
    assert capacity == {"total_capacity": 8, "current_usage": 2, "available_slots": 6}


async def test_available_hosts_pass_every_check() -> None:
    good = await make_host(name="good")
    await make_host(name="inactive", is_active=False)
    await make_host(name="draining", is_draining=True)
    await make_host(name="unhealthy", health_status=HealthStatus.UNHEALTHY)
    await make_host(name="unknown", health_status=HealthStatus.UNKNOWN)
    full = await make_host(name="full", max_concurrent_jobs=1)
    await make_job(host=full, status="launching")
    factory = ExecutorFactory()
    assert await factory.get_available_hosts() == [good]
    assert await factory.get_available_hosts(ContainerJobFactory.build()) == [good]


async def test_a_simulated_host_takes_only_jobs_that_prefer_it_unless_configured() -> None:
    host = await make_host(config={})
    factory = ExecutorFactory()
    assert await factory.get_available_hosts() == [host]
    assert await factory.get_available_hosts(ContainerJobFactory.build()) == []
    assert await factory.get_available_hosts(ContainerJobFactory.build(preferred_executor="simulated")) == [host]


async def test_an_engine_behind_a_socket_belongs_to_its_node() -> None:
    nodes = [(await make_host(executor_type="docker", config=config)).node for config in (
        {}, {"node": "there"}, {"url": "tcp://engine:2375", "node": "there"},
    )]  # fmt: skip
    assert nodes == ["test-node", "there", ""]


async def test_many_hosts_are_probed_at_the_same_time() -> None:
    factory = ExecutorFactory()
    hosts = [await make_host() for _ in range(20)]
    # Passed only when all of them wait in it.
    barrier = asyncio.Barrier(len(hosts))

    async def health_check() -> bool:
        await barrier.wait()
        return True

    stand_in = executor()
    stand_in.health_check.side_effect = health_check
    with patch.object(factory, "get_executor", lambda _: stand_in):
        reports = await factory.check_health(hosts)
    assert len(reports) == len(hosts)
    assert all(report.healthy for report in reports.values())


async def test_a_type_without_an_executor_is_a_configuration_error() -> None:
    host = await make_host(executor_type="teapot")
    with pytest.raises(ExecutorConfigurationError, match="no executor of type teapot"):
        ExecutorFactory().get_executor(host)
