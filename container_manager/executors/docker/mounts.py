"""Folders of a host that are mounted into containers, on engines that create a missing folder and do not refuse it."""

from collections.abc import Mapping

from container_manager.executors.configs import DockerConfig
from container_manager.executors.docker.client import EngineClient
from container_manager.executors.exceptions import ExecutorHostError, ExecutorOperationError

CREATE = "v4.0.0/libpod/containers/create"
"""Podman's own call, which refuses a mount whose source does not exist; the one that is Docker's does not."""


async def check_mounts(
    client: EngineClient, config: DockerConfig, image: str, labels: Mapping[str, str], timeout: float
) -> None:
    """Create a container with the host's mounts, which are checked then, and remove it.

    `labels`: by which the reconciler finds it, should it be left.

    Raises:
        ExecutorHostError: a folder does not exist.
        ExecutorError: as all calls.
    """
    mounts = [
        {"destination": path, "source": mount.source, "type": "bind", "options": ["rbind", "ro"]}
        for path, mount in config.mounts.items()
    ]
    settings = {
        "image": image,
        "command": ["true"],
        "netns": {"nsmode": "none"},
        "mounts": mounts,
        "labels": dict(labels),
    }
    try:
        async with client.call("checking config.mounts", timeout) as docker:
            made = await docker._query_json(CREATE, "POST", data=settings, versioned_api=False)  # noqa: SLF001
            await docker.containers.container(made["Id"]).delete()
    except ExecutorOperationError as error:
        if "no such file or directory" in str(error):
            raise ExecutorHostError(f"config.mounts: a bind source path does not exist: {error}.") from error
        raise
