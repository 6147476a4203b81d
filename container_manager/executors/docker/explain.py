"""Why a container ended: asks its engine, which may be ending or starting just then."""

import asyncio
import logging
import time
from collections.abc import Sequence
from http import HTTPStatus

from container_manager.executors.base import ExecutionStatus, ExecutorSettings
from container_manager.executors.docker.client import EngineClient
from container_manager.executors.docker.ends import (
    ENDS,
    FIRST_SIGNAL_CODE,
    KILL,
    MARK,
    OOM,
    START,
    STOP,
    ContainerEvent,
    History,
    SeenEnds,
    ended_by_restart,
    explain_end,
    has,
    read_event,
)
from container_manager.executors.docker.errors import status_of
from container_manager.executors.docker.status import parse_time
from container_manager.executors.exceptions import ExecutorConnectionError, ExecutorError, ExecutorOperationError

logger = logging.getLogger(__name__)

EVENTS_KEPT, EVENTS_MEANWHILE = 256, 64
"""An engine remembers this many events, and none from before its start. We allow for this many after the one that is
looked up."""

SIGNAL_DELAY, STOP_DELAY = 0.2, 0.05
"""Seconds after an end within which an engine reports the signal that caused it, and a stop that has succeeded."""

MOST_HISTORIES = 4
"""Ends that may be looked up in the engine's history at once; each reads a few hundred events."""


RECALLED_FOR = 5.0
"""Seconds for which the history of an engine is not read again for executions that are taken over."""


class Explainer:
    """Explains the ends of one engine's containers. `seen` gets what the engine tells of them."""

    def __init__(self, settings: ExecutorSettings, client: EngineClient) -> None:
        self.seen = SeenEnds()
        self._settings, self._client = settings, client
        self._histories = asyncio.Semaphore(MOST_HISTORIES)
        self._recalling, self._recalled_at = asyncio.Lock(), -RECALLED_FOR

    async def explain(self, status: ExecutionStatus) -> ExecutionStatus:
        """The status of an ended container, with the cause if it came from outside."""
        if not self._client.dialect.ends_containers:
            return explain_end(status, await self._all_events(status))
        async with self._histories:
            await self._check_that_engine_stays(status.id)
            try:
                events = await self._events_until_end(status)
            except ExecutorError as error:
                # Either the engine ends just now, or it does not tell its history: then what was heard has to do.
                await self._check_that_engine_stays(status.id)
                logger.info("the end of container %s is judged without the engine's history: %s", status.id, error)
                events = self.seen.events(status.id)
                if self.seen.engine_was_closing(status.id) and has(events, KILL):
                    return ended_by_restart(self._settings.name, status)
        return ended_by_restart(self._settings.name, status) if events is None else explain_end(status, events)

    async def recall(self, container_id: str) -> None:
        """Take over what the engine remembers of a container; a history of all containers serves many calls."""
        shared = self._client.dialect.ends_containers
        async with self._recalling:
            if shared and time.monotonic() - self._recalled_at < RECALLED_FOR:
                return
            try:
                history = await self.history(container_id)
            except ExecutorError as error:
                logger.info("the engine of host %s does not tell its history: %s", self._settings.name, error)
                return
            self._recalled_at = time.monotonic()
            for event in history.events if shared else history.of(container_id):
                self.seen.add_past(event)

    async def _all_events(self, status: ExecutionStatus) -> Sequence[ContainerEvent]:
        """What the engine has told about the container; from an engine whose restart ends nothing."""
        heard = self.seen.events(status.id)
        if has(heard, *ENDS):
            return heard
        try:
            return (await self.history(status.id)).of(status.id) or heard
        except ExecutorError as error:
            logger.info("the end of container %s is judged without the engine's history: %s", status.id, error)
            return heard

    async def _check_that_engine_stays(self, container_id: str) -> None:
        """Raise ExecutorConnectionError if the engine is shutting down: it ends its containers, then goes away.

        It accepts no new connection from before it ends the first container. The end is then explained after the
        restart.
        """
        try:
            await self._client.check_new_connection()
        except ExecutorConnectionError:
            self.seen.note_closing(container_id)
            raise
        except ExecutorError as error:
            if isinstance(error, ExecutorOperationError) and status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
                # A proxy before the engine answers in its place.
                self.seen.note_closing(container_id)
                raise ExecutorConnectionError(str(error)) from error

    async def _events_until_end(self, status: ExecutionStatus) -> Sequence[ContainerEvent] | None:
        """The container's events; None when the engine was started after the container had ended.

        Raises:
            ExecutorError: the engine does not tell.
        """
        if self.seen.is_fresh(status.id) and not self.seen.engine_was_closing(status.id):
            await asyncio.sleep(_time_for_late_events(status, self.seen.events(status.id)))
            return self.seen.events(status.id)
        history = await self.history(status.id)
        if not has(history.of(status.id), *ENDS):
            # Nothing follows from what is missing, unless an event that was caused for this very purpose is there.
            await self._leave_mark(status.id)
            history = await self.history(status.id)
        elif delay := _time_for_late_events(status, history.of(status.id)):
            await asyncio.sleep(delay)
            history = await self.history(status.id)
        events, heard = history.of(status.id), self.seen.events(status.id)
        if self.seen.engine_was_closing(status.id) and has(heard, KILL) and not has(events, *ENDS):
            # The engine that told of the signal is not this one any more.
            return None
        if not (history.is_full or history.survives_restarts) and has(events, MARK, *ENDS) and not has(events, START):
            # The engine remembers all that it has seen of this container, and was started after the container.
            return None
        return heard or events

    async def _leave_mark(self, container_id: str) -> None:
        """Have the engine write an event of this container into its history: an update that changes nothing."""
        doing, path = "updating a container", f"containers/{container_id}/update"
        async with self._client.stream(path, doing, {}, self._settings.call_timeout, method="POST", data=b"{}"):
            pass

    async def history(self, container_id: str) -> History:
        """The events that the engine remembers; at least those of one container.

        Raises:
            ExecutorError: it does not tell them.
        """
        doing, patience = "asking for past events", self._settings.call_timeout
        async with self._client.call(doing, patience) as docker:
            info = await docker.system.info()
            params = docker.dialect.history(parse_time(info["SystemTime"]).timestamp(), container_id)
        async with self._client.stream("events", doing, params, patience) as stream:
            lines = (await stream.rest()).splitlines()
        try:
            events = [event for line in lines if (event := read_event(line)) is not None]
        except ValueError as error:
            raise ExecutorOperationError(f"host {self._settings.name}: {error}.") from error
        is_full = len(lines) >= EVENTS_KEPT - EVENTS_MEANWHILE
        return History(events, is_full, survives_restarts=bool(info.get("LiveRestoreEnabled")))


def _time_for_late_events(status: ExecutionStatus, events: Sequence[ContainerEvent]) -> float:
    """Seconds after which the engine has reported what ended the container, if it was not the container itself."""
    if has(events, KILL, STOP, OOM):
        return 0
    return SIGNAL_DELAY if (status.exit_code or 0) > FIRST_SIGNAL_CODE else STOP_DELAY
