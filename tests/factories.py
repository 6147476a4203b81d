"""Rows with defaults that make a healthy active host and a pending job."""

import factory
from django.utils import timezone

from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import ExecutorType
from container_manager.models import ContainerJob, ExecutorHost


class ExecutorHostFactory(factory.django.DjangoModelFactory):
    """A simulated host that takes any job and answers its probes, so that nothing outside is needed."""

    class Meta:
        model = ExecutorHost

    name = factory.Sequence("host-{}".format)
    executor_type = ExecutorType.SIMULATED
    config = factory.LazyAttribute(lambda host: {"accept": "any"} if host.executor_type == "simulated" else {})
    region = "eu-central"
    routing_weight = 100
    max_concurrent_jobs = 10
    is_active = True
    health_status = HealthStatus.HEALTHY
    last_health_check = factory.LazyFunction(timezone.now)


class ContainerJobFactory(factory.django.DjangoModelFactory):
    """A small job without preferences."""

    class Meta:
        model = ContainerJob

    name = factory.Sequence("job-{}".format)
    image = "busybox:test"
    command = factory.LazyFunction(lambda: ["echo", "hello"])
    memory_limit = 64
    cpu_limit = 0.1
