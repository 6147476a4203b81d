"""Regions of Google Cloud Run."""

from container_manager.executors.cloudrun.executor import CloudRunExecutor

__all__ = ["CloudRunExecutor"]
