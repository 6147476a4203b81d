"""What a process counts and times, for Prometheus. With several worker processes on a port, all of them together."""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

DECISIONS = Counter(
    "container_manager_decisions",
    "Committed routing decisions. `code`: the check that most hosts failed, of a refusal.",
    ["outcome", "code", "executor_type"],
)
ENDS = Counter("container_manager_job_ends", "Attempts that ended, by how.", ["status", "executor_type"])
EVENTS = Counter(
    "container_manager_events", "Committed events: job_launched counts launches.", ["kind", "executor_type"]
)
DECISION_SECONDS = Histogram(
    "container_manager_decision_seconds", "One routing pass: reading the fleet and deciding.", buckets=SECONDS
)
COMMIT_SECONDS = Histogram(
    "container_manager_commit_seconds", "One group commit: from being taken up to its answer.", buckets=SECONDS
)
COMMIT_ITEMS = Histogram(
    "container_manager_commit_items", "State changes in one group commit.", buckets=(1, 2, 5, 10, 50, 100, 500, 1000)
)
TAIL_LAG_SECONDS = Histogram(
    "container_manager_event_tail_lag_seconds", "From the writing of an event to its being read here.", buckets=SECONDS
)
LOOP_LAG_SECONDS = Histogram(
    "container_manager_event_loop_lag_seconds", "How late the event loop wakes who asked for it.", buckets=SECONDS
)
SUBSCRIBERS = Gauge("container_manager_event_subscribers", "Open subscriptions to events.", multiprocess_mode="livesum")
RUNS = Gauge("container_manager_runs", "Jobs that this process drives.", multiprocess_mode="livesum")
