"""The clock of this process: the time at its start, and from then on one that cannot be set.

The system's clock may be set while the process runs. Deadlines, back-offs and the order of timestamps must not jump
with it. The time at the start is the database's, so that the processes of an installation agree.
"""

import time
from datetime import UTC, datetime, timedelta

BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Unlike the monotonic clock, it goes on while the machine is suspended."""

_began, _began_at = datetime.now(UTC), time.clock_gettime(BOOT)


def now() -> datetime:
    """The present moment."""
    return _began + timedelta(seconds=time.clock_gettime(BOOT) - _began_at)


def set_to(moment: datetime) -> None:
    """Go on from this moment. Used once, before the process does anything."""
    global _began, _began_at
    _began, _began_at = moment, time.clock_gettime(BOOT)
