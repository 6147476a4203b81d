"""The log's tail and the fan-out to subscribers."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import TypeVar

from container_manager.store import events as event_store
from container_manager.store import threads
from container_manager.store.events import Event

logger = logging.getLogger(__name__)

PAGE = 500
QUEUE_LIMIT = 1000
REPAIR_SECONDS = 5.0
LISTEN_AGAIN_SECONDS = 1.0

T = TypeVar("T")
Wanted = Callable[[Event], bool]


class _Subscriber:
    """A bounded queue. One that overflows is dropped: its subscriber goes on from the table, at its cursor."""

    def __init__(self) -> None:
        self.queue: deque[Event] = deque()
        self.ready = asyncio.Event()
        self.overflowed = False

    def offer(self, events: Sequence[Event]) -> None:
        if len(self.queue) + len(events) > QUEUE_LIMIT:
            self.overflowed = True
            self.queue.clear()
        elif not self.overflowed:
            self.queue.extend(events)
        self.ready.set()

    def take(self) -> list[Event]:
        """All that has come."""
        events = list(self.queue)
        self.queue.clear()
        return events


class EventLog:
    """One tail a process reads each event once and offers it to the subscribers.

    `listen_url`: the PostgreSQL database in which it hears of other processes' commits.
    """

    def __init__(self, listen_url: str = "") -> None:
        self._listen_url = listen_url
        self._listeners: list[Callable[[Sequence[Event]], None]] = []
        self._cursor = 0
        self._subscribers: set[_Subscriber] = set()
        self._committed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        self._drain_begun = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self) -> None:
        self._cursor = await threads.read(event_store.newest)
        self._tasks = [asyncio.create_task(self._follow(), name="event tail")]
        if self._listen_url:
            self._tasks.append(asyncio.create_task(self._listen(), name="event listener"))

    async def stop(self) -> None:
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def on_read(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Call `listener` with what the tail reads, on the event loop."""
        self._listeners.append(listener)

    def drain(self) -> None:
        """Let every subscription complete."""
        self._draining = True
        self._drain_begun.set()
        for subscriber in self._subscribers:
            subscriber.ready.set()

    async def drained(self) -> None:
        """Wait until the last subscription has completed."""
        await self._empty.wait()

    def wake(self) -> None:
        """Something was committed: read on."""
        self._committed.set()

    async def subscribe(self, after: int | None, wanted: Wanted = lambda _: True) -> AsyncGenerator[Event, None]:
        """Each wanted event beyond `after` once, in order; None begins with the next one. Ends when the log drains."""
        async with aclosing(self.batches(after, wanted)) as batches:
            async for batch in batches:
                for event in batch:
                    yield event

    async def batches(
        self, after: int | None, wanted: Wanted = lambda _: True, seconds: float = 0
    ) -> AsyncGenerator[list[Event], None]:
        """The same, as many at a time as have come; what is live, at most every so many seconds."""
        cursor = self._cursor if after is None else after
        while not self._draining:
            subscriber = _Subscriber()
            self._subscribers.add(subscriber)
            self._empty.clear()
            try:
                # Attached first and read up to now second: what is committed in between comes by either way.
                for source in (self._catch_up(cursor), self._live(subscriber, seconds)):
                    async for events in source:
                        new = [event for event in events if event.id > cursor]
                        cursor = new[-1].id if new else cursor
                        if found := [event for event in new if wanted(event)]:
                            yield found
            finally:
                self._subscribers.discard(subscriber)
                if not self._subscribers:
                    self._empty.set()

    async def until_drained(self, values: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """The values, but no longer than until the log drains."""
        drained = asyncio.create_task(self._drain_begun.wait())
        following = None
        try:
            while not self._draining:
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

    async def _catch_up(self, cursor: int) -> AsyncIterator[list[Event]]:
        while not self._draining and (page := await threads.read(event_store.after, cursor, PAGE)):
            yield page
            cursor = page[-1].id

    async def _live(self, subscriber: _Subscriber, seconds: float) -> AsyncIterator[list[Event]]:
        while not subscriber.overflowed and not self._draining:
            await subscriber.ready.wait()
            if seconds:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._drain_begun.wait()
            subscriber.ready.clear()
            yield subscriber.take()

    async def _listen(self) -> None:
        while True:
            try:
                async with aclosing(event_store.commits(self._listen_url)) as commits:
                    async for _ in commits:
                        self.wake()
            except Exception as error:  # noqa: BLE001 - the tail looks by itself until it hears again
                logger.warning("listening to commits: %s", error)
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REPAIR_SECONDS):
                    await self._committed.wait()
            except TimeoutError:
                pass
            self._committed.clear()
            try:
                while page := await threads.read(event_store.after, self._cursor, PAGE):
                    self._cursor = page[-1].id
                    for listener in self._listeners:
                        listener(page)
                    for subscriber in self._subscribers:
                        subscriber.offer(page)
            except Exception:
                # The tail must outlive a database that is away for a while; the next wake reads on.
                logger.exception("reading the event log")
