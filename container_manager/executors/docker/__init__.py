"""Docker engines."""

from container_manager.executors.docker.executor import DockerExecutor

__all__ = ["DockerExecutor"]
