"""Statistics of jobs."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Annotated, Self

import strawberry

from container_manager import clock
from container_manager.domain import histogram
from container_manager.domain.outcome import FailureReason
from container_manager.store.statistics import COUNTS, HOUR, KEPT, Dimension, Figures
from graphql_api.context import Info
from graphql_api.ids import bad_input, in_utc

MOST_BUCKETS, MOST_GROUPS = 500, 100
DEFAULT_RANGE = timedelta(hours=1)


@strawberry.enum(description="What statistics are grouped by.")
class StatsDimension(Enum):
    HOST = Dimension.HOST
    EXECUTOR_TYPE = Dimension.EXECUTOR_TYPE
    REGION = Dimension.REGION
    IMAGE = strawberry.enum_value(Dimension.IMAGE, description="Of many images, the rarer are counted as (others).")
    LABEL = strawberry.enum_value(
        Dimension.LABEL, description="The values of one label. Of many, the rarer are counted as (others)."
    )


@strawberry.type(description="Durations in seconds, within 6 %; null when there is none.")
class Quantiles:
    count: int
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Self:
        shares = {f"p{share}": histogram.quantile(counts, share / 100) for share in (50, 90, 95, 99)}
        return cls(count=sum(counts.values()), **shares)


@strawberry.type
class FailureCount:
    reason: FailureReason
    attempts: int


@strawberry.type(description="What happened. Attempts are counted when they end: those of a job that is retried, too.")
class JobFigures:
    submitted: int = strawberry.field(description="Only of all jobs, not in groups; as refused and started.")
    refused: int = strawberry.field(description="Decisions by which no host could take a job.")
    started: int
    succeeded: int
    failed: int
    timed_out: int
    cancelled: int
    figures: strawberry.Private[Figures]

    @strawberry.field(description="Why attempts failed, the most frequent first.")
    def failures(self) -> list[FailureCount]:
        counts = self.figures.distributions["failures"].most_common()
        return [FailureCount(reason=FailureReason(reason), attempts=count) for reason, count in counts]

    @strawberry.field(description="From when an attempt began to wait until it had a host.")
    def queue_time(self) -> Quantiles:
        return Quantiles.of(self.figures.distributions["queued"])

    @strawberry.field(description="From when an attempt had a host until its container ran.")
    def launch_time(self) -> Quantiles:
        return Quantiles.of(self.figures.distributions["launched"])

    @strawberry.field(description="From when a container ran until its end.")
    def run_time(self) -> Quantiles:
        return Quantiles.of(self.figures.distributions["ran"])

    @classmethod
    def of(cls, figures: Figures) -> Self:
        return cls(**{name: figures.counts[name] for name in COUNTS}, figures=figures)


@strawberry.type
class JobStatsBucket:
    start: datetime
    figures: JobFigures


@strawberry.type
class JobStatsGroup:
    key: str = strawberry.field(description="The host's name, the executor type, region, image, or the label's value.")
    figures: JobFigures


@strawberry.type(description="Jobs that have not ended.")
class UnfinishedJobs:
    pending: int
    routed: int
    launching: int
    running: int


@strawberry.type(
    description="Statistics of jobs in a range of time, some seconds late. They have minutes for two days and hours "
    "for 400 days: a longer range than 12 hours, or an earlier one, is made of whole hours."
)
class JobStats:
    since: datetime
    until: datetime
    bucket_seconds: float
    buckets: list[JobStatsBucket]
    known: strawberry.Private[Mapping[str, int] | None] = None
    """The numbers of unfinished jobs, when they were read already."""

    @strawberry.field(description="Of the whole range.")
    def total(self) -> JobFigures:
        total = Figures()
        for bucket in self.buckets:
            total.add(bucket.figures.figures)
        return JobFigures.of(total)

    @strawberry.field(description="Those with the most ended attempts first.")
    async def groups(
        self,
        info: Info,
        by: StatsDimension,
        label: Annotated[str | None, strawberry.argument(description="The label's name, for LABEL.")] = None,
        first: int = 20,
    ) -> list[JobStatsGroup]:
        if (label is not None) != (by is StatsDimension.LABEL):
            bad_input("label: is needed for LABEL, and only for it.")
        if not 0 <= first <= MOST_GROUPS:
            bad_input(f"first: must be from 0 to {MOST_GROUPS}.")
        dimension = Dimension(by.value)
        read = info.context.service.statistics.groups
        found = await read(self.since, self.until, dimension, label or "", first)
        return [JobStatsGroup(key=key, figures=JobFigures.of(figures)) for key, figures in found]

    @strawberry.field(description="Now; the range does not matter.")
    async def unfinished(self, info: Info) -> UnfinishedJobs:
        return UnfinishedJobs(**(self.known or await info.context.service.statistics.unfinished()))


async def job_stats(info: Info, since: datetime | None, until: datetime | None, buckets: int) -> JobStats:
    """The statistics of a range, by default of the last hour.

    Raises:
        GraphQLError: BAD_USER_INPUT, the range or the number of buckets cannot be answered.
    """
    if not 1 <= buckets <= MOST_BUCKETS:
        bad_input(f"buckets: must be from 1 to {MOST_BUCKETS}.")
    end = in_utc(until, "until") if until is not None else clock.now()
    begin = in_utc(since, "since") if since is not None else end - DEFAULT_RANGE
    if not clock.now() - KEPT[HOUR] <= begin < end <= clock.now() + timedelta(days=1):
        bad_input(f"since: must be before until, and within the last {KEPT[HOUR].days} days.")
    found = await info.context.service.statistics.series(begin, end, buckets)
    return JobStats(
        since=begin,
        until=end,
        bucket_seconds=found.step.total_seconds(),
        buckets=[JobStatsBucket(start=start, figures=JobFigures.of(figures)) for start, figures in found.steps.items()],
    )
