"""What a process counts and times, for Prometheus. To add a metric, define it here and observe it where it happens.

With several worker processes on one port, the values of all of them are added up.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

logger = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

DECISIONS = Counter(
    "container_manager_decisions",
    "Committed routing decisions. `code` of a refusal: the check that most hosts failed.",
    ["outcome", "code", "executor_type"],
)
ENDS = Counter(
    "container_manager_job_ends",
    "Jobs that reached an end state.",
    ["status", "executor_type"],
)
LONG_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600)
QUEUE_SECONDS = Histogram(
    "container_manager_job_queue_seconds",
    "From when an attempt began to wait until it had a host; of attempts that started.",
    ["executor_type"],
    buckets=LONG_SECONDS,
)
LAUNCH_SECONDS = Histogram(
    "container_manager_job_launch_seconds",
    "From when an attempt had a host until its container ran.",
    ["executor_type"],
    buckets=LONG_SECONDS,
)
RUN_SECONDS = Histogram(
    "container_manager_job_run_seconds",
    "From when a container ran until its end.",
    ["executor_type"],
    buckets=LONG_SECONDS,
)
REFUSED_TOKENS = Counter("container_manager_refused_tokens", "Requests with a token that is not valid.")
OPERATIONS = Counter("container_manager_graphql_operations", "GraphQL operations that have begun.")
ERRORS = Counter("container_manager_graphql_errors", "GraphQL errors that were answered, by their code.", ["code"])
EVENTS = Counter(
    "container_manager_events", "Committed events: job_launched counts launches.", ["kind", "executor_type"]
)
FLEET_VIEW_ERRORS = Counter(
    "container_manager_fleet_view_errors",
    "Hosts whose copy in memory differed from the rows. The copy was read again.",
)
DECISION_SECONDS = Histogram(
    "container_manager_decision_seconds", "One routing pass: reading the fleet and deciding.", buckets=SECONDS
)
COMMIT_SECONDS = Histogram(
    "container_manager_commit_seconds",
    "One group commit, from the start of its transaction to its answers.",
    buckets=SECONDS,
)
COMMIT_ITEMS = Histogram(
    "container_manager_commit_items", "State changes in one group commit.", buckets=(1, 2, 5, 10, 50, 100, 500, 1000)
)
TAIL_LAG_SECONDS = Histogram(
    "container_manager_event_tail_lag_seconds", "Time from writing an event to reading it here.", buckets=SECONDS
)
LOOP_LAG_SECONDS = Histogram(
    "container_manager_event_loop_lag_seconds", "How late the event loop runs a timer.", buckets=SECONDS
)
SUBSCRIBERS = Gauge("container_manager_event_subscribers", "Open subscriptions to events.", multiprocess_mode="livesum")
RUNS = Gauge("container_manager_runs", "Jobs whose runs this process drives.", multiprocess_mode="livesum")


@contextmanager
def never_failing() -> Iterator[None]:
    """Log an error in the block instead of raising it: metrics of several workers are files, and a disk may be full."""
    try:
        yield
    except Exception:
        logger.exception("metrics could not be recorded")
