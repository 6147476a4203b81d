"""A container's settings in the engine's API: limited, without privileges, and labelled as this service's."""

from typing import Any

from container_manager.executors.base import LABEL, LaunchSpec
from container_manager.executors.configs import DockerConfig
from container_manager.executors.docker.dialect import DOCKER, MEBIBYTE, Dialect

SMALLEST_MEMORY = 6 * MEBIBYTE
NANO_PER_MILLI = 1_000_000


def container_settings(
    spec: LaunchSpec, config: DockerConfig, instance: str, dialect: Dialect = DOCKER
) -> dict[str, Any]:
    """The body of the engine's create call."""
    job = {
        "Entrypoint": list(spec.entry_point),
        "Cmd": list(spec.command),
        "WorkingDir": spec.working_dir,
        "User": spec.user,
    }
    return {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in spec.variables.items()],
        "Labels": {
            f"{LABEL}.instance": instance,
            **attempt_labels(spec),
            f"{LABEL}.memory-mb": str(spec.memory_mb),
            f"{LABEL}.cpu-millis": str(spec.cpu_millis),
        },
        "HostConfig": _host_config(spec, config, dialect),
        **{name: value for name, value in job.items() if value},
    }


def attempt_labels(spec: LaunchSpec) -> dict[str, str]:
    """The labels by which the containers of an attempt are found."""
    return {f"{LABEL}.job": str(spec.job_id), f"{LABEL}.attempt": str(spec.attempt)}


def _host_config(spec: LaunchSpec, config: DockerConfig, dialect: Dialect) -> dict[str, Any]:
    output = {"max-size": str(dialect.log_file), "max-file": str(dialect.log_files)}
    memory = max(spec.memory_mb * MEBIBYTE, SMALLEST_MEMORY)
    optional = {
        "ReadonlyRootfs": spec.read_only_root,
        "ShmSize": spec.shm_mb * MEBIBYTE,
        "CapAdd": list(config.capabilities),
        "Tmpfs": {path: f"size={size}m" for path, size in spec.tmpfs.items()},
        "Mounts": [
            {"Type": "bind", "Source": mount.source, "Target": path, "ReadOnly": mount.read_only}
            for path, mount in config.mounts.items()
        ],
    }
    return {
        "NetworkMode": spec.network or config.network,
        "Memory": memory,
        # Equal to Memory: otherwise a container gets the same amount again as swap.
        "MemorySwap": memory,
        "NanoCpus": spec.cpu_millis * NANO_PER_MILLI,
        "PidsLimit": config.max_processes,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "RestartPolicy": {"Name": "no"},
        # Set for each container, because the engine's own defaults may not be readable, bound nothing or keep little.
        "LogConfig": {"Type": "json-file", "Config": output},
        # An init process forwards TERM, so that a job which ignores signals as pid 1 still stops in time.
        "Init": True,
        **{name: value for name, value in optional.items() if value},
    }
