"""Makes jobs of what other code has put into the outbox."""

import asyncio
from collections.abc import Callable

from container_manager.aio import wait_for
from container_manager.store import outbox, threads
from container_manager.store.transaction import ITEM_ERRORS
from container_manager.store.writer import Writer

POLL_SECONDS = 1.0
"""What code in another process has submitted wakes nothing."""


class Outbox:
    """A loop that looks into the outbox when it is woken, and every `POLL_SECONDS`."""

    name = "outbox"
    patience = 60.0

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Something was put into the outbox."""
        self._news.set()

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            beat()
            while entries := await threads.read(outbox.waiting):
                taken = await asyncio.gather(
                    *(self._writer.write(outbox.take, entry) for entry in entries), return_exceptions=True
                )
                for entry, error in zip(entries, taken, strict=True):
                    if isinstance(error, ITEM_ERRORS):
                        await self._writer.write(outbox.set_aside, (entry, repr(error)))
                    elif isinstance(error, BaseException):
                        raise error
                beat()
            await wait_for(self._news, POLL_SECONDS)

    async def stop(self) -> None:
        """Nothing to clean up."""
