"""Asking a host whether it is healthy and has room, each time under a deadline."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from container_manager import clock, configuration
from container_manager.domain.host_health import HealthStatus
from container_manager.executors.base import ContainerExecutor
from container_manager.executors.cache import close
from container_manager.executors.exceptions import ExecutorClosedError, ExecutorError, ExecutorResourceError
from container_manager.models import ExecutorHost
from container_manager.store.health import HealthReport

logger = logging.getLogger(__name__)

GetExecutor = Callable[[ExecutorHost], ContainerExecutor]


async def probe(host: ExecutorHost, get_executor: GetExecutor) -> HealthReport:
    """Probe one host. Whatever goes wrong is part of the report; nothing is raised."""
    began = time.perf_counter()
    info: dict[str, Any] = {}
    error = exhausted = ""
    superseded = False
    deadline = configuration.current().probe_timeout_seconds
    executor = None
    try:
        async with asyncio.timeout(deadline):
            executor = get_executor(host)
            if await executor.health_check():
                info = await executor.get_capacity_info()
            else:
                error = "The executor says that it is not healthy."
    except TimeoutError:
        error = f"No answer within {deadline:g} s."
    except ExecutorClosedError as problem:
        error, superseded = str(problem), True
    except ExecutorResourceError as problem:
        exhausted = str(problem)
    except ExecutorError as problem:
        error = str(problem)
    except Exception:
        # Whatever an executor raises, its probe must not fail those of other hosts.
        logger.exception("the probe of host %s failed", host.name, extra={"host": host.name})
        error = "The probe failed unexpectedly; the log of this service has the cause."
    if host.pk is None and executor is not None:
        await close(executor)
    return HealthReport(
        host_id=host.pk,
        status=HealthStatus.UNHEALTHY if error else HealthStatus.HEALTHY,
        checked_at=clock.now(),
        latency_ms=(time.perf_counter() - began) * 1000,
        error=error,
        exhausted=exhausted,
        memory_mb=info.get("memory_mb"),
        cpu_cores=info.get("cpu_cores"),
        engine=str(info.get("engine", ""))[:100],
        engine_id=str(info.get("engine_id", ""))[:32],
        superseded=superseded,
    )


async def has_room(host: ExecutorHost, get_executor: GetExecutor) -> bool:
    """Whether the executor itself says that it is healthy and has a free slot; an error means that it has none."""
    try:
        async with asyncio.timeout(configuration.current().probe_timeout_seconds):
            executor = get_executor(host)
            if not await executor.health_check():
                return False
            capacity = await executor.get_capacity_info()
    except (ExecutorError, TimeoutError) as error:
        logger.warning(
            "host %s is not available: %s", host.name, error or "no answer in time", extra={"host": host.name}
        )
        return False
    return int(capacity["available_slots"]) > 0
