"""Who hears of events: bounded queues, and what is made ready once for all who want the same."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from container_manager.store.events import Event

logger = logging.getLogger(__name__)

QUEUE_LIMIT = 5000
PREPARE_SECONDS = 1.0

Wanted = Callable[[Event], bool]
Prepare = Callable[[Sequence[Event]], Coroutine[Any, Any, None]]


class Subscriber:
    """A bounded queue. One that overflows is dropped: its subscriber goes on from the table, at its cursor."""

    def __init__(self, wanted: Wanted | None) -> None:
        self.wanted = wanted
        self.overflowed = False
        self.passed = 0
        """Up to this event it has taken all that it wanted."""
        self._queue: list[Sequence[Event]] = []
        self._waiting = 0
        # Not an asyncio.Event: this is waited for once for each event by each subscriber, and Event asks for the
        # running loop each time.
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None

    def offer(self, events: Sequence[Event]) -> None:
        last = events[-1].id
        # Who wants all gets the very sequence that all get: it was made ready as a whole.
        if self.wanted is not None:
            events = [event for event in events if self.wanted(event)]
        if self._waiting + len(events) > QUEUE_LIMIT:
            self.overflow()
        elif events and not self.overflowed:
            self._queue.append(events)
            self._waiting += len(events)
            self.wake()
        elif not self._queue and not self.overflowed:
            self.passed = last

    def overflow(self) -> None:
        self.overflowed = True
        self.take()
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def woken(self) -> None:
        """Wait until something has come, or `wake` was called."""
        if not self._queue and not self.overflowed:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def take(self) -> list[Sequence[Event]]:
        """All that has come."""
        taken, self._queue, self._waiting = self._queue, [], 0
        return taken


class Audience:
    """Subscribers who are told of events at the same moments; what they are told is made ready once for all of them."""

    def __init__(self, prepare: Prepare | None, seconds: float) -> None:
        self.subscribers: set[Subscriber] = set()
        self._prepare = prepare
        self._seconds = seconds
        self._events: list[Event] = []
        self._telling: asyncio.Task[None] | None = None

    def offer(self, events: Sequence[Event]) -> None:
        if self._prepare is None and not self._seconds:
            self._hand_out(events)
            return
        self._events += events
        if len(self._events) > QUEUE_LIMIT:
            # It cannot keep up: they go on from the table, each at its own pace.
            self._events.clear()
            for subscriber in self.subscribers:
                subscriber.overflow()
        elif self._telling is None:
            self._telling = asyncio.create_task(self._tell_on(), name="telling of events")

    async def _tell_on(self) -> None:
        try:
            while self._events:
                events, self._events = self._events, []
                if self._prepare is not None:
                    await self._make_ready(self._prepare, events)
                self._hand_out(events)
                await asyncio.sleep(self._seconds)
        finally:
            self._telling = None

    async def _make_ready(self, prepare: Prepare, events: Sequence[Event]) -> None:
        wanted = self._wanted(events)
        if not wanted:
            return
        preparing = asyncio.create_task(prepare(wanted))
        done, _ = await asyncio.wait({preparing}, timeout=PREPARE_SECONDS)
        # Else they make it ready themselves, and hear what is wrong.
        if not done:
            logger.warning("making events ready takes longer than %s s", PREPARE_SECONDS)
        elif (error := preparing.exception()) is not None:
            logger.warning("making events ready: %r", error)

    def _wanted(self, events: Sequence[Event]) -> Sequence[Event]:
        """Those that anybody wants: the very sequence where somebody wants all."""
        filters = [subscriber.wanted for subscriber in self.subscribers]
        if None in filters:
            return events
        return [event for event in events if any(wanted is not None and wanted(event) for wanted in filters)]

    def _hand_out(self, events: Sequence[Event]) -> None:
        for subscriber in self.subscribers:
            subscriber.offer(events)
