"""The root fields that follow: events as they are committed, and the output of jobs."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from functools import partial

import strawberry
from graphql import GraphQLError

from container_manager import clock
from container_manager.errors import NotFound
from container_manager.events.audience import Prepare, Wanted
from container_manager.events.job_output import StoppingError
from container_manager.store.events import CursorExpiredError, Event
from graphql_api import ids
from graphql_api.auth import UNAUTHENTICATED
from graphql_api.context import Context, Info
from graphql_api.fanout import deliver
from graphql_api.filters import RoutingEventFilter
from graphql_api.types.events import RoutingEvent, check_known
from graphql_api.types.logs import LogLine, log_cursor, log_line
from graphql_api.types.statistics import JobStats, job_stats

STOPPING = GraphQLError(
    "The service is stopping; subscribe again after the last cursor.", extensions={"code": "UNAVAILABLE"}
)
SHORTEST_MS, LONGEST_MS = 20, 5000
MOST_MINUTES = 7 * 24 * 60
STATS_SECONDS = 1.0
TOGETHER_SECONDS = 0.03
"""Events that follow another within this time are executed, encoded and sent together; a single one at once."""


def _wanted(filters: RoutingEventFilter | None) -> Wanted | None:
    return filters.wanted() if filters else None


async def _cursor(info: Info, after: str | None) -> int | None:
    cursor = ids.from_cursor(after)
    await check_known(info, cursor)
    return cursor


@asynccontextmanager
async def _counted(context: Context) -> AsyncGenerator[None, None]:
    with context.subscribed(context):
        yield


async def _events(
    info: Info, after: str | None, filters: RoutingEventFilter | None, seconds: float, prepare: Prepare | None
) -> AsyncGenerator[Sequence[Event], None]:
    batches = info.context.service.events.batches(await _cursor(info, after), _wanted(filters), seconds, prepare)
    context = info.context
    async with aclosing(batches), _counted(context):
        try:
            async for batch in batches:
                if context.identity is None:
                    raise UNAUTHENTICATED
                yield batch
        except CursorExpiredError as error:
            raise ids.cursor_expired(error) from None


@strawberry.type
class Subscription:
    @strawberry.subscription(description="After a cursor: everything since, then live. Without: live from now.")
    async def routing_events(
        self, info: Info, after: str | None = None, filters: RoutingEventFilter | None = None
    ) -> AsyncGenerator[RoutingEvent, None]:
        async for event in deliver(info, partial(_events, info, after, filters, TOGETHER_SECONDS), listed=False):
            yield event

    @strawberry.subscription(
        description="The same, delivered in batches at most this often: for dashboards and for many subscribers. 20 to "
        "5,000 ms."
    )
    async def routing_event_batches(
        self,
        info: Info,
        after: str | None = None,
        filters: RoutingEventFilter | None = None,
        every_ms: int | None = 100,
    ) -> AsyncGenerator[list[RoutingEvent], None]:
        every_ms = 100 if every_ms is None else every_ms
        if not SHORTEST_MS <= every_ms <= LONGEST_MS:
            ids.bad_input(f"everyMs: {every_ms} is not from {SHORTEST_MS} to {LONGEST_MS}.")
        async for events in deliver(info, partial(_events, info, after, filters, every_ms / 1000), listed=True):
            yield events

    @strawberry.subscription(
        description="From `after` or the start, then live until the job has ended and the last line is out. Cursors "
        "are those of ContainerJob.logs."
    )
    async def job_logs(self, info: Info, id: strawberry.ID, after: str | None = None) -> AsyncGenerator[LogLine, None]:
        lines = info.context.service.jobs.follow(ids.to_pk("ContainerJob", id), log_cursor(after))
        async with aclosing(lines), _counted(info.context):
            try:
                async for line in lines:
                    if info.context.identity is None:
                        raise UNAUTHENTICATED
                    yield log_line(line)
            except NotFound as error:
                ids.bad_input(f"id: {error}")
            except StoppingError:
                raise STOPPING from None

    @strawberry.subscription(
        description="The statistics of the last `lastMinutes`, at once and then whenever they change, at most once a "
        "second."
    )
    async def job_stats(self, info: Info, last_minutes: int = 60, buckets: int = 60) -> AsyncGenerator[JobStats, None]:
        if not 1 <= last_minutes <= MOST_MINUTES:
            ids.bad_input(f"lastMinutes: must be from 1 to {MOST_MINUTES}.")
        changes = info.context.service.statistics.changes(STATS_SECONDS)
        async with aclosing(changes), _counted(info.context):
            async for unfinished in changes:
                if info.context.identity is None:
                    raise UNAUTHENTICATED
                now = clock.now()
                stats = await job_stats(info, now - timedelta(minutes=last_minutes), now, buckets)
                stats.known = unfinished
                yield stats
