"""The event log's tail in this process, and subscriptions to it."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from itertools import islice
from typing import TypeVar

from django.db import Error as DatabaseError

from container_manager import clock
from container_manager.aio import background, cancel_and_wait, wait_for
from container_manager.events.audience import Audience, Prepare, Subscriber, Wanted
from container_manager.observability import metrics
from container_manager.store import events as event_store
from container_manager.store import listen, threads
from container_manager.store.events import Event

logger = logging.getLogger(__name__)

PAGE = 500
REPAIR_SECONDS = 5.0
RETRY_SECONDS = 1.0
LISTEN_AGAIN_SECONDS = 5.0
RECENT = 5000
"""How many events are kept in memory, for slow subscribers and for those that reconnect soon."""

T = TypeVar("T")


class EventLog:
    """The tail reads each event once per process and offers it to listeners and subscribers.

    It is a control loop (`control.supervisor.Loop`): the supervisor runs it again when it fails, and the process is not
    ready when the tail has not been read for `patience` seconds.
    `listen_url`: the PostgreSQL database that notifies of other processes' commits; "" for SQLite.
    """

    name = "event log"
    patience = 3 * REPAIR_SECONDS

    def __init__(self, listen_url: str = "") -> None:
        self._listen_url = listen_url
        self._listeners: list[Callable[[Sequence[Event]], None]] = []
        self.cursor = 0
        """The cursor of the newest event that the tail has read."""
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._reading: dict[int, asyncio.Task[list[Event]]] = {}
        self._warned = ""
        self._audiences: dict[tuple[Prepare | None, float], Audience] = {}
        self._committed = asyncio.Event()
        self._beat: Callable[[], None] = lambda: None
        self.draining = False
        self._drain_begun = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def audiences(self) -> Sequence[Audience]:
        """The present subscribers, in groups of equal preparation and rate."""
        return list(self._audiences.values())

    async def open(self) -> None:
        """Begin after the newest event. Subscriptions are possible from here on."""
        self.cursor = await threads.read(event_store.newest)

    async def run(self, beat: Callable[[], None]) -> None:
        """Read events as they are committed, for as long as the process runs."""
        self._beat = beat
        while True:
            try:
                if self._listen_url:
                    await self._listen()
                else:
                    await self._read_tail()
                    await wait_for(self._committed, REPAIR_SECONDS)
            except (DatabaseError, OSError) as error:
                logger.warning("the event log cannot be read: %r", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def stop(self) -> None:
        """Complete all subscriptions."""
        self.drain()

    def on_read(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Call `listener` with each page that the tail reads, on the event loop."""
        self._listeners.append(listener)

    def drain(self) -> None:
        """Let every subscription complete."""
        self.draining = True
        self._drain_begun.set()
        for audience in self._audiences.values():
            for subscriber in audience.subscribers:
                subscriber.wake()

    async def drained(self) -> None:
        """Wait until the last subscription has completed."""
        await self._empty.wait()

    def wake(self) -> None:
        """This process has committed events: read them now."""
        self._committed.set()

    # -------------------------------------------------------------- subscribing

    async def subscribe(self, after: int | None, wanted: Wanted | None = None) -> AsyncGenerator[Event, None]:
        """Each wanted event after `after` once, in order; with None, from the next event on. Ends when the log drains.

        Raises:
            CursorExpiredError: events after the cursor have been deleted.
        """
        async with aclosing(self.batches(after, wanted)) as batches:
            async for batch in batches:
                for event in batch:
                    yield event

    async def batches(
        self,
        after: int | None,
        wanted: Wanted | None = None,
        seconds: float = 0,
        prepare: Prepare | None = None,
    ) -> AsyncGenerator[Sequence[Event], None]:
        """The same in batches: all that has come so far, and live events at most once every `seconds`.

        `prepare` is awaited with live events before they are handed out, once for all subscribers with the same one.
        """
        cursor = self.cursor if after is None else after
        while not self.draining:
            subscriber = Subscriber(wanted)
            audience = self._audiences.setdefault((prepare, seconds), Audience(prepare, seconds))
            audience.subscribers.add(subscriber)
            self._empty.clear()
            with metrics.never_failing():
                metrics.SUBSCRIBERS.inc()
            try:
                # The subscriber is attached before the table is read, so that no event falls between the two.
                async for page in self._catch_up(cursor, self.cursor):
                    cursor = page[-1].id
                    if found := [event for event in page if wanted(event)] if wanted else page:
                        yield found
                while not subscriber.overflowed and not self.draining:
                    await subscriber.woken()
                    for events in subscriber.take():
                        new = events if events[0].id > cursor else [event for event in events if event.id > cursor]
                        if new:
                            cursor = new[-1].id
                            yield new
                # Skip events that the filter has rejected already; they may have been deleted by now.
                cursor = max(cursor, subscriber.passed)
            finally:
                audience.subscribers.discard(subscriber)
                if not audience.subscribers:
                    self._audiences.pop((prepare, seconds), None)
                if not self._audiences:
                    self._empty.set()
                with metrics.never_failing():
                    metrics.SUBSCRIBERS.dec()

    async def until_drained(self, values: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """The values, until the log drains."""
        async with background(self._drain_begun.wait()) as drained:
            following: asyncio.Future[T] | None = None
            try:
                while not self.draining:
                    following = asyncio.ensure_future(anext(values))
                    await asyncio.wait({following, drained}, return_when=asyncio.FIRST_COMPLETED)
                    if not following.done():
                        return
                    try:
                        value = following.result()
                    except StopAsyncIteration:
                        return
                    yield value
            finally:
                await cancel_and_wait(following)

    async def _catch_up(self, cursor: int, tail: int) -> AsyncIterator[list[Event]]:
        while cursor < tail and not self.draining:
            try:
                page = self._from_memory(cursor) or await self._from_table(cursor)
            except DatabaseError as error:
                logger.warning("a subscriber cannot catch up with the event log: %r", error)
                await wait_for(self._drain_begun, RETRY_SECONDS, clear=False)
                continue
            if not page:
                return
            yield page
            cursor = page[-1].id
            # Reading from memory never waits, so give other tasks their turn here.
            await asyncio.sleep(0)

    def _from_memory(self, cursor: int) -> list[Event]:
        if not self._recent or cursor < self._recent[0].id:
            return []
        return list(islice((event for event in self._recent if event.id > cursor), PAGE))

    async def _from_table(self, cursor: int) -> list[Event]:
        """A page, read once for all subscribers that want it at the same moment."""
        if (reading := self._reading.get(cursor)) is None:
            with threads.fanout_thread():
                reading = asyncio.create_task(threads.read(event_store.page, cursor, PAGE))
            self._reading[cursor] = reading
            reading.add_done_callback(lambda _: self._reading.pop(cursor, None))
        return await asyncio.shield(reading)

    # -------------------------------------------------------------- the tail

    async def _listen(self) -> None:
        try:
            async with aclosing(listen.pages(self._listen_url, self.cursor, PAGE, REPAIR_SECONDS)) as pages:
                async for page in pages:
                    self._warned = ""
                    self._hand_out(page)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with LISTEN, polling goes on
            if self._warned != (warning := repr(error)):
                logger.warning("LISTEN does not work: %s; polling every %s s instead", warning, RETRY_SECONDS)
                self._warned = warning
        again = time.monotonic() + LISTEN_AGAIN_SECONDS
        while time.monotonic() < again:
            await self._read_tail()
            await wait_for(self._committed, RETRY_SECONDS)

    async def _read_tail(self) -> None:
        more = True
        while more:
            page = await threads.read(event_store.following, self.cursor, PAGE)
            self._hand_out(page)
            # What is committed from here on wakes the tail again.
            more = len(page) == PAGE

    def _hand_out(self, page: Sequence[Event]) -> None:
        self._beat()
        if not page:
            return
        self.cursor = page[-1].id
        self._recent.extend(page)
        for audience in self._audiences.values():
            audience.offer(page)
        for listener in self._listeners:
            try:
                listener(page)
            except Exception:
                # One listener's error must not keep events from the others.
                logger.exception("a listener to events failed")
        with metrics.never_failing():
            metrics.TAIL_LAG_SECONDS.observe(max((clock.now() - page[-1].at).total_seconds(), 0))
