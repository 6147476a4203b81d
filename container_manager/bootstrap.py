"""The first host of a new installation: the local engine of Docker or Podman."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

from container_manager.domain.host_health import HealthStatus
from container_manager.environment import runtime_folder
from container_manager.errors import Conflict
from container_manager.service import Service
from container_manager.store.transaction import Actor

logger = logging.getLogger(__name__)

SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock")
ROOTLESS = ("docker.sock", "podman/podman.sock")
"""The sockets of engines that run without root, in the user's runtime folder."""

LOCAL = "local"
STARTER = Actor("serve")


async def register_local_engine(service: Service) -> None:
    """Register the local engine if there is no host yet and the engine answers; otherwise log what to do."""
    if not await service.tokens.any_exist():
        logger.warning("There is no token yet: make one with `container-manager token create --name me --role admin`.")
    if await service.hosts.any_exist():
        return
    rootless = [Path(folder, name) for name in ROOTLESS if (folder := runtime_folder())]
    for path in [*map(Path, SOCKETS), *rootless]:
        if not await asyncio.to_thread(path.is_socket):
            continue
        values = {"name": LOCAL, "executor_type": "docker", "config": {"url": f"unix://{path}"}}
        report = await service.hosts.probe_unsaved(values)
        if report.status == HealthStatus.HEALTHY:
            with suppress(Conflict):  # another process has just registered it
                await service.hosts.create(values, STARTER)
            logger.info("The local engine %s at %s is registered as host %r.", report.engine, path, LOCAL)
            return
        logger.warning("The engine at %s cannot be used: %s", path, report.error)
    logger.warning(
        "There is no host to run jobs on: start a Docker or Podman engine and this service again, "
        "or create a host: `container-manager hosts create NAME --url …`."
    )
