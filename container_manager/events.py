"""The log's tail and the fan-out to subscribers."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from itertools import islice
from typing import TypeVar

from django.utils import timezone

from container_manager import metrics
from container_manager.audience import Audience, Prepare, Subscriber, Wanted
from container_manager.store import events as event_store
from container_manager.store import threads
from container_manager.store.events import Event
from container_manager.waiting import wait_for

logger = logging.getLogger(__name__)

PAGE = 500
REPAIR_SECONDS = 5.0
FOLLOW_AGAIN_SECONDS = 1.0
LISTEN_AGAIN_SECONDS = 5.0
RECENT = 5000
"""How many events are kept in memory, for subscribers that were too slow and for those that come back soon."""

T = TypeVar("T")


class EventLog:
    """One tail a process reads each event once and offers it to the subscribers.

    `listen_url`: the PostgreSQL database in which it hears of other processes' commits.
    """

    def __init__(self, listen_url: str = "") -> None:
        self._listen_url = listen_url
        self._listeners: list[Callable[[Sequence[Event]], None]] = []
        self._cursor = 0
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._reading: dict[int, asyncio.Task[list[Event]]] = {}
        self._warned = ""
        self._audiences: dict[tuple[Prepare | None, float], Audience] = {}
        self._committed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.read_at = time.monotonic()
        """When it was last read, on the clock of `time.monotonic`."""
        self.draining = False
        self._drain_begun = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self) -> None:
        self._cursor = await threads.read(event_store.newest)
        self._task = asyncio.create_task(self._follow(), name="event tail")

    async def stop(self) -> None:
        self.drain()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def on_read(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Call `listener` with what the tail reads, on the event loop."""
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
        """Something was committed: read on."""
        self._committed.set()

    async def subscribe(self, after: int | None, wanted: Wanted | None = None) -> AsyncGenerator[Event, None]:
        """Each wanted event beyond `after` once, in order; None begins with the next one. Ends when the log drains.

        Raises:
            CursorExpiredError: some of them are not kept any more.
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
        """The same, as many at a time as have come; what is live, at most every so many seconds.

        `prepare` is awaited with live events before those who give it are told of them: once for all who give the same.
        """
        cursor = self._cursor if after is None else after
        while not self.draining:
            subscriber = Subscriber(wanted)
            audience = self._audiences.setdefault((prepare, seconds), Audience(prepare, seconds))
            audience.subscribers.add(subscriber)
            metrics.SUBSCRIBERS.inc()
            self._empty.clear()
            try:
                # Attached first and read up to the tail second: what is read by the tail from here on comes live.
                async for page in self._catch_up(cursor, self._cursor):
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
                # Where nothing was wanted for long, what is read again may not be kept any more.
                cursor = max(cursor, subscriber.passed)
            finally:
                audience.subscribers.discard(subscriber)
                metrics.SUBSCRIBERS.dec()
                if not audience.subscribers:
                    self._audiences.pop((prepare, seconds), None)
                if not self._audiences:
                    self._empty.set()

    async def until_drained(self, values: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """The values, but no longer than until the log drains."""
        drained = asyncio.create_task(self._drain_begun.wait())
        following = None
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
            tasks = [task for task in (following, drained) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _catch_up(self, cursor: int, tail: int) -> AsyncIterator[list[Event]]:
        while cursor < tail and not self.draining:
            try:
                page = self._from_memory(cursor) or await self._from_table(cursor)
            except event_store.CursorExpiredError:
                raise
            except Exception as error:  # noqa: BLE001 - it must outlive a database that is away for a while
                logger.warning("catching up with the event log: %r", error)
                await wait_for(self._drain_begun, FOLLOW_AGAIN_SECONDS, clear=False)
                continue
            if not page:
                return
            yield page
            cursor = page[-1].id
            # Neither memory nor a fast client makes anybody wait, and others want their turn.
            await asyncio.sleep(0)

    def _from_memory(self, cursor: int) -> list[Event]:
        if not self._recent or cursor < self._recent[0].id:
            return []
        return list(islice((event for event in self._recent if event.id > cursor), PAGE))

    async def _from_table(self, cursor: int) -> list[Event]:
        """A page, read once for all who want it at the same moment."""
        if (reading := self._reading.get(cursor)) is None:
            with threads.apart():
                reading = asyncio.create_task(threads.read(event_store.page, cursor, PAGE))
            self._reading[cursor] = reading
            reading.add_done_callback(lambda _: self._reading.pop(cursor, None))
        return await asyncio.shield(reading)

    async def _follow(self) -> None:
        while True:
            try:
                if self._listen_url:
                    await self._listen()
                else:
                    await self._read_on()
                    await wait_for(self._committed, REPAIR_SECONDS)
            except Exception as error:  # noqa: BLE001 - it must outlive a database that is away for a while
                logger.warning("reading the event log: %r", error)
                await asyncio.sleep(FOLLOW_AGAIN_SECONDS)

    async def _listen(self) -> None:
        try:
            async with aclosing(event_store.live(self._listen_url, self._cursor, PAGE, REPAIR_SECONDS)) as pages:
                async for page in pages:
                    self._warned = ""
                    self._tell(page)
        except Exception as error:  # noqa: BLE001 - there is another way until it is back
            if self._warned != (warning := repr(error)):
                logger.warning("listening to commits: %s; looking every %s s instead", warning, FOLLOW_AGAIN_SECONDS)
                self._warned = warning
        again = time.monotonic() + LISTEN_AGAIN_SECONDS
        while time.monotonic() < again:
            await self._read_on()
            await wait_for(self._committed, FOLLOW_AGAIN_SECONDS)

    async def _read_on(self) -> None:
        more = True
        while more:
            page = await threads.read(event_store.following, self._cursor, PAGE)
            self._tell(page)
            # What is committed from here on tells of itself.
            more = len(page) == PAGE

    def _tell(self, page: Sequence[Event]) -> None:
        self.read_at = time.monotonic()
        if not page:
            return
        self._cursor = page[-1].id
        self._recent.extend(page)
        metrics.TAIL_LAG_SECONDS.observe(max((timezone.now() - page[-1].at).total_seconds(), 0))
        for audience in self._audiences.values():
            audience.offer(page)
        for listener in self._listeners:
            try:
                listener(page)
            except Exception:
                # One listener's fault must not keep the others from hearing.
                logger.exception("telling of events")
