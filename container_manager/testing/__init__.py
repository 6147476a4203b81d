"""For the tests of packages that extend the service. It needs pytest and pytest-asyncio."""

from container_manager.testing.executor_contract import ExecutorContract, Make, settings

__all__ = ["ExecutorContract", "Make", "settings"]
