"""Live events for subscribers: bounded queues, and work that is done once for all subscribers alike."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from container_manager.aio import start_detached
from container_manager.store.events import Event

logger = logging.getLogger(__name__)

QUEUE_LIMIT = 5000
PREPARE_SECONDS = 1.0

Wanted = Callable[[Event], bool]
Prepare = Callable[[Sequence[Event]], Coroutine[Any, Any, None]]


class Subscriber:
    """A subscriber's queue. If it overflows it is emptied, and the subscriber reads on from the table."""

    def __init__(self, wanted: Wanted | None) -> None:
        self.wanted = wanted
        self.overflowed = False
        self.passed = 0
        """The cursor up to which it has received every event that it wants."""
        self._queue: list[Sequence[Event]] = []
        self.waiting = 0
        """How many events are in the queue."""
        # Not an asyncio.Event, which looks up the running loop in every wait: this wait happens once per event and
        # subscriber.
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None

    def offer(self, events: Sequence[Event]) -> None:
        last = events[-1].id
        # Without a filter the sequence is passed on as it is: it was prepared as a whole.
        if self.wanted is not None:
            events = [event for event in events if self.wanted(event)]
        if self.waiting + len(events) > QUEUE_LIMIT:
            self.overflow()
        elif events and not self.overflowed:
            self._queue.append(events)
            self.waiting += len(events)
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
        """Wait until events have come, or `wake` was called."""
        if not self._queue and not self.overflowed:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def take(self) -> list[Sequence[Event]]:
        """All events that have come, as batches."""
        taken, self._queue, self.waiting = self._queue, [], 0
        return taken


class Audience:
    """Subscribers that get events at the same moments, prepared once for all of them."""

    def __init__(self, prepare: Prepare | None, seconds: float) -> None:
        self.subscribers: set[Subscriber] = set()
        self._prepare = prepare
        self._seconds = seconds
        self._events: list[Event] = []
        self._delivering: asyncio.Task[object] | None = None
        self._preparing: set[asyncio.Task[object]] = set()

    def offer(self, events: Sequence[Event]) -> None:
        if self._prepare is None and not self._seconds:
            self._hand_out(events)
            return
        self._events += events
        if len(self._events) > QUEUE_LIMIT:
            # Preparing cannot keep up: the subscribers continue from the table, each at its own pace.
            self._overflow()
        elif self._delivering is None:
            self._delivering = start_detached(self._deliver(), "delivering events")

    async def _deliver(self) -> None:
        try:
            while self._events:
                events, self._events = self._events, []
                if self._prepare is not None:
                    await self._prepare_for_all(self._prepare, events)
                self._hand_out(events)
                await asyncio.sleep(self._seconds)
        except Exception:
            logger.exception("events could not be delivered; the subscribers read them from the table")
            self._overflow()
        finally:
            self._delivering = None

    def _overflow(self) -> None:
        self._events.clear()
        for subscriber in self.subscribers:
            subscriber.overflow()

    async def _prepare_for_all(self, prepare: Prepare, events: Sequence[Event]) -> None:
        wanted = self._wanted(events)
        if not wanted:
            return
        # Without prepared events each subscriber does the work itself, and gets the error if there is one.
        preparing = start_detached(prepare(wanted), "preparing events")
        self._preparing.add(preparing)
        preparing.add_done_callback(self._preparing.discard)
        done, _ = await asyncio.wait({preparing}, timeout=PREPARE_SECONDS)
        if not done:
            logger.warning("preparing events takes longer than %s s", PREPARE_SECONDS)

    def _wanted(self, events: Sequence[Event]) -> Sequence[Event]:
        """The events that any subscriber wants; the sequence itself if one of them has no filter."""
        filters = [subscriber.wanted for subscriber in self.subscribers]
        if None in filters:
            return events
        return [event for event in events if any(wanted is not None and wanted(event) for wanted in filters)]

    def _hand_out(self, events: Sequence[Event]) -> None:
        for subscriber in self.subscribers:
            try:
                subscriber.offer(events)
            except Exception:
                # It reads these events from the table, and its own client gets the error.
                logger.exception("events could not be offered to a subscriber")
                subscriber.overflow()
