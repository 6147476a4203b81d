"""When an attempt that failed is followed by another one, and after which back-off.

Two budgets are counted apart. A failure of the job itself (exit code, timeout) uses up its `max_attempts`. A fault of
the host (a refused launch, an engine that restarts) uses up the retries that the installation allows; a host that does
not answer, or whose quota is used up, costs the job nothing.
"""

from datetime import timedelta

LONGEST_BACK_OFF = timedelta(seconds=60)


def back_off(failures: int) -> timedelta:
    """The pause before the next attempt: 1 s after the first failure, doubled with each further one, at most 60 s."""
    return min(timedelta(seconds=2.0 ** min(failures - 1, 10)), LONGEST_BACK_OFF)


def after_own_failure(attempt: int, host_faults: int, max_attempts: int) -> timedelta | None:
    """The pause before the next attempt after a failure of the job itself; None when its attempts are used up.

    Args:
        attempt: the number of the attempt that failed, from 1.
        host_faults: how many of the attempts so far were failed by a host.
        max_attempts: how often the job itself may fail.
    """
    own = own_attempts(attempt, host_faults)
    return back_off(own) if own < max_attempts else None


def own_attempts(attempt: int, host_faults: int) -> int:
    """How many attempts count against the job's `max_attempts`."""
    return attempt - host_faults


def after_host_fault(
    host_faults: int, counted_faults: int, allowed: int | None, *, at_once: bool = False
) -> timedelta | None:
    """The pause before a job that a host has failed is routed again; None when its retries are used up.

    Args:
        host_faults: faults of hosts so far, this one included.
        counted_faults: those of them that use up a retry.
        allowed: how many counted faults are followed by a retry; None is any number.
        at_once: routing avoids this host now, and another one may take the job at once.
    """
    if allowed is not None and counted_faults > allowed:
        return None
    return timedelta() if at_once else back_off(host_faults)
