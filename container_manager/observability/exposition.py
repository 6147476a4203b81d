"""The text that Prometheus scrapes: what this process has counted, and the present state of the fleet."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from container_manager import clock
from container_manager.domain.kinds import ExecutorType
from container_manager.domain.lifecycle import TERMINAL
from container_manager.environment import shares_metrics
from container_manager.observability import metrics
from container_manager.routing.types import HostState
from container_manager.store import jobs as job_store
from container_manager.store import pending, threads
from container_manager.store.fleet import states
from container_manager.store.pending import PendingGroup

CONTENT_TYPE = CONTENT_TYPE_LATEST
MIB = 2**20
HOST_LABELS = ("host", "executor_type", "region")

_Labels = tuple[str, ...]

_OF_HOSTS: dict[str, tuple[str, Callable[[HostState], float | None]]] = {
    "healthy": ("1 when its probes succeed, else 0.", lambda h: h.health == "healthy"),
    "usable": (
        "1 when routing may choose it, leaving room aside.",
        lambda h: h.is_active and not h.is_draining and h.health == "healthy" and not h.ejected and not h.cooling,
    ),
    "active": ("1 when it is active.", lambda h: h.is_active),
    "draining": ("1 when it takes no new jobs.", lambda h: h.is_draining),
    "ejected": ("1 while it is avoided because launches kept failing.", lambda h: h.ejected),
    "jobs": ("Jobs that hold room on it.", lambda h: h.jobs),
    "slots": ("Jobs that it runs at the same time.", lambda h: h.max_jobs),
    "reserved_memory_bytes": ("Memory that is reserved for its jobs.", lambda h: h.memory * MIB),
    "memory_bytes": ("Its memory limit, if it has one.", lambda h: h.max_memory and h.max_memory * MIB),
    "reserved_cpu_cores": ("Cores that are reserved for its jobs.", lambda h: h.cpu / 1000),
    "cpu_cores": ("Its limit of cores, if it has one.", lambda h: h.max_cpu and h.max_cpu / 1000),
}


CODES = ("BAD_USER_INPUT", "FORBIDDEN", "INTERNAL", "TIMEOUT", "UNAUTHENTICATED", "UNAVAILABLE")

# Those that are known exist from the start, so that the rate of a counter sees its first increase.
for _kind in ExecutorType:
    for _status in sorted(TERMINAL):
        metrics.ENDS.labels(str(_status), str(_kind))
    for _duration in (metrics.QUEUE_SECONDS, metrics.LAUNCH_SECONDS, metrics.RUN_SECONDS):
        _duration.labels(str(_kind))
for _code in CODES:
    metrics.ERRORS.labels(_code)


async def exposition() -> bytes:
    """The text of one scrape. While the database does not answer, it has the counters of this process alone."""
    fleet = CollectorRegistry()
    with suppress(*threads.DATABASE_AWAY):
        fleet.register(await threads.read(_fleet))
    return generate_latest(_counted()) + generate_latest(fleet)


def _counted() -> CollectorRegistry:
    if not shares_metrics():
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


@cache
def _release() -> str:
    try:
        return version("container-manager")
    except PackageNotFoundError:
        return "not installed"


class _Fleet(Collector):
    """Gauges from the database: the same values whichever process is asked."""

    def __init__(self, groups: list[PendingGroup], active: int, hosts: list[HostState]) -> None:
        self._groups, self._active, self._hosts = groups, active, hosts

    def collect(self) -> Iterator[Metric]:
        yield _gauge("build_info", "1, with the version of the service.", ("version",), [((_release(),), 1)])
        yield _gauge("active_jobs", "Jobs that hold room on a host.", (), [((), self._active)])
        yield from self._queue()
        for name, (description, value) in _OF_HOSTS.items():
            values = [((h.name, h.executor_type, h.region), value(h)) for h in self._hosts]
            known = [(labels, number) for labels, number in values if number is not None]
            yield _gauge(f"host_{name}", description, HOST_LABELS, known)

    def _queue(self) -> Iterator[Metric]:
        now, jobs, ages = clock.now(), dict[_Labels, float](), dict[_Labels, float]()
        for group in self._groups:
            # Of what they wait for, the check that most hosts fail.
            code, _ = max(group.rejections, key=lambda counted: counted[1], default=("", 0))
            of = (group.verdict.lower(), code)
            jobs[of] = jobs.get(of, 0) + group.jobs
            ages[of] = max(ages.get(of, 0), (now - group.oldest).total_seconds())
        labels = ("verdict", "code")
        yield _gauge("queue_jobs", "Pending jobs, by what they wait for.", labels, jobs.items())
        yield _gauge("queue_oldest_seconds", "Age of the oldest of them.", labels, ages.items())


def _fleet() -> _Fleet:
    return _Fleet(pending.groups(), job_store.count_active(), states())


def _gauge(name: str, description: str, labels: Iterable[str], values: Iterable[tuple[_Labels, float]]) -> Metric:
    family = GaugeMetricFamily(f"container_manager_{name}", description, labels=list(labels))
    for of, value in values:
        family.add_metric(list(of), value)
    return family
