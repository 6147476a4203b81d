"""One executor per host and event loop, replaced when the host's settings change."""

import asyncio
import logging
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from container_manager.executors.base import ContainerExecutor

logger = logging.getLogger(__name__)

_no_loop = type("NoLoop", (), {})()
"""Stands for the event loop of executors that were built outside of one."""


class Host(Protocol):
    """What the cache needs to know of a host; `config_version` grows with each change of its settings."""

    pk: int
    config_version: int


class ExecutorCache:
    """Keeps executors by host. Safe to use from threads that each have an event loop of their own."""

    def __init__(self, build: Callable[[Any], ContainerExecutor]) -> None:
        self._build = build
        # By event loop, because the connections of an executor belong to the loop in which they were made.
        self._executors: weakref.WeakKeyDictionary[Any, dict[int, tuple[int, ContainerExecutor]]] = (
            weakref.WeakKeyDictionary()
        )
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, host: Host) -> ContainerExecutor:
        """The executor of the host in this event loop; a host without an id gets a new one each time."""
        if host.pk is None:
            return self._build(host)
        cache = self._executors.setdefault(_current_loop(), {})
        version, executor = cache.get(host.pk, (-1, None))
        if executor is None or version < host.config_version:
            # An instance that was read before the last change gets the newer executor, never the other way round.
            self.invalidate(host)
            executor = self._build(host)
            cache[host.pk] = (host.config_version, executor)
        return executor

    def invalidate(self, host: Host) -> None:
        """Forget the host's executors and close their connections; the next `get` builds a new one."""
        for loop, cache in list(self._executors.items()):
            _, executor = cache.pop(host.pk, (0, None))
            if executor is None or loop is _no_loop or loop.is_closed():
                continue
            if loop is _current_loop():
                task = loop.create_task(close(executor))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            else:
                asyncio.run_coroutine_threadsafe(close(executor), loop)

    async def aclose(self) -> None:
        """Close the connections of all executors of this event loop."""
        cache = self._executors.pop(_current_loop(), {})
        await asyncio.gather(*(close(executor) for _, executor in cache.values()), *self._closing)


async def close(executor: ContainerExecutor) -> None:
    """Close an executor; an error is logged."""
    try:
        await executor.aclose()
    except Exception as error:  # noqa: BLE001 - an executor that cannot be closed is forgotten nevertheless
        logger.warning("an executor could not be closed: %s", error)


def _current_loop() -> Any:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return _no_loop
