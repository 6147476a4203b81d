"""The clock of this process: the time of day at its start, and from then on the monotonic clock.

The system's clock may be set while the process runs. Deadlines, back-offs and the order of timestamps must not jump
with it.
"""

import time
from datetime import UTC, datetime, timedelta

_BEGAN, _BEGAN_AT = datetime.now(UTC), time.monotonic()


def now() -> datetime:
    """The present moment, never before one that was returned earlier."""
    return _BEGAN + timedelta(seconds=time.monotonic() - _BEGAN_AT)
