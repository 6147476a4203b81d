"""How this process takes memory and gives it back."""

import asyncio
import ctypes
import gc
import resource
from contextlib import suppress
from functools import cache
from pathlib import Path

TRIM_SECONDS, GROWTH_BYTES = 20.0, 8_000_000

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""Parameters of glibc's mallopt; see mallopt(3)."""

LARGE_BYTES = 65_536


@cache
def tune() -> None:
    """Once: collect garbage less often, and let large blocks go back to the system as soon as they are free.

    Objects from the start stay, and batches make many that reference counting frees. By default, glibc keeps blocks of
    up to 32 MiB once it has seen such, and a heap for each thread.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    with suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        libc.mallopt(M_ARENA_MAX, 1)


async def trim_regularly() -> None:
    """While memory has grown, collect what refers to itself, which may be few large objects, and give memory back."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    least, pause = _resident(), TRIM_SECONDS
    while True:
        await asyncio.sleep(pause)
        before = _resident()
        if before <= least + GROWTH_BYTES:
            pause = TRIM_SECONDS
            continue
        gc.collect()
        if trim is not None:
            await asyncio.to_thread(trim, 0)
        # Seldom, when it is needed for what is there.
        pause = TRIM_SECONDS if _resident() < before - GROWTH_BYTES else 2 * TRIM_SECONDS


def _resident() -> int:
    """The memory of this process in bytes; of other systems than Linux, the most that it had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
