"""Events: reading and following the log."""

from collections.abc import AsyncGenerator, Iterable, Sequence

from container_manager.events.audience import Prepare, Wanted
from container_manager.process import Process
from container_manager.store import events as event_store
from container_manager.store import threads
from container_manager.store.events import Event
from container_manager.store.paging import Key, Page, Search


class Events:
    """The use cases about events."""

    def __init__(self, process: Process) -> None:
        self._log = process.events

    async def newest_cursor(self) -> int:
        """The cursor of the newest event; 0 when there is none."""
        return await threads.read(event_store.newest)

    async def page(self, search: Search, position: Key | None, limit: int, after: int | None) -> Page:
        """A page of events.

        Raises:
            CursorExpiredError: events after the cursor `after` have been deleted.
        """
        return await threads.read(event_store.searched, search, position, limit, after)

    async def by_ids(self, ids: Iterable[int]) -> dict[int, Event]:
        """Events by id; those that do not exist are left out."""
        return await threads.read(event_store.by_ids, ids)

    def batches(
        self, after: int | None, wanted: Wanted | None, seconds: float, prepare: Prepare | None
    ) -> AsyncGenerator[Sequence[Event], None]:
        """Events after a cursor, live, until the service stops; see `EventLog.batches`."""
        return self._log.batches(after, wanted, seconds, prepare)
