"""The capacity of hosts, and how much of it is reserved."""

from dataclasses import asdict, fields
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


def capacity_of(host: models.ExecutorHost) -> Capacity:
    """The capacity of a host."""
    return Capacity(
        max_concurrent_jobs=host.max_concurrent_jobs,
        running_jobs=host.used_jobs,
        available_slots=max(host.max_concurrent_jobs - host.used_jobs, 0),
        max_memory_mb=host.reported_memory_mb if host.max_memory_mb is None else host.max_memory_mb,
        reserved_memory_mb=host.used_memory_mb,
        max_cpu_cores=host.reported_cpu_cores if host.max_cpu_cores is None else host.max_cpu_cores,
        reserved_cpu_cores=host.used_cpu_millis / 1000,
    )


def capacity_together(hosts: list[models.ExecutorHost]) -> Capacity:
    """The capacity of these hosts together; unlimited if one of them is."""
    each = [asdict(capacity_of(host)) for host in hosts]
    totals: dict[str, Any] = {}
    for field in fields(Capacity):
        column = [one[field.name] for one in each]
        totals[field.name] = None if None in column else sum(column)
    totals["reserved_cpu_cores"] = sum(host.used_cpu_millis for host in hosts) / 1000
    return Capacity(**totals)
