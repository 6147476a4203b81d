"""The capacity of hosts, and how much of it is reserved."""

from typing import Any

import strawberry

from container_manager import models
from container_manager.domain.kinds import ExecutorType


@strawberry.type(
    description="Null limits mean unlimited. What is reserved is derived from the jobs that hold the host, "
    "never from a counter."
)
class Capacity:
    max_concurrent_jobs: int
    running_jobs: int
    available_slots: int
    max_memory_mb: int | None
    reserved_memory_mb: int
    max_cpu_cores: float | None
    reserved_cpu_cores: float


@strawberry.type
class ExecutorCapacity:
    executor_type: ExecutorType
    region: str
    hosts: int
    available_hosts: int
    capacity: Capacity


def capacity_of(hosts: list[models.ExecutorHost]) -> Capacity:
    """The capacity of these hosts together; unlimited if one of them is."""
    memory = [h.max_memory_mb if h.max_memory_mb is not None else h.reported_memory_mb for h in hosts]
    cores = [h.max_cpu_cores if h.max_cpu_cores is not None else h.reported_cpu_cores for h in hosts]
    return Capacity(
        max_concurrent_jobs=sum(host.max_concurrent_jobs for host in hosts),
        running_jobs=sum(host.used_jobs for host in hosts),
        available_slots=sum(max(host.max_concurrent_jobs - host.used_jobs, 0) for host in hosts),
        max_memory_mb=_total(memory),
        reserved_memory_mb=sum(host.used_memory_mb for host in hosts),
        max_cpu_cores=_total(cores),
        reserved_cpu_cores=sum(host.used_cpu_millis for host in hosts) / 1000,
    )


def _total(limits: list[Any]) -> Any:
    return None if any(limit is None for limit in limits) else sum(limits)
