"""Waiting for something, but not for ever."""

import asyncio


async def wait_for(event: asyncio.Event, timeout: float, *, clear: bool = True) -> bool:
    """Wait until the event is set, at most `timeout` seconds; clear it. Returns whether it was set."""
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return False
    if clear:
        event.clear()
    return True
