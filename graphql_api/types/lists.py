"""Pages of jobs and of decisions."""

from contextlib import nullcontext

import strawberry

from container_manager.store import paging
from graphql_api.context import Info
from graphql_api.operation import current
from graphql_api.types.jobs import ContainerJob, RoutingDecision, shows_texts
from graphql_api.types.pages import Asked, Connection


@strawberry.type
class TotalCount:
    count: int
    is_exact: bool = strawberry.field(
        description="False: there are more. The count ends at a limit, and when the search takes too long."
    )


@strawberry.type(name="ContainerJobConnection")
class JobConnection(Connection[ContainerJob]):
    search: strawberry.Private[paging.Search]

    @strawberry.field(description="Counted when it is asked for, as far as a short search finds them.")
    async def total_count(self, info: Info) -> TotalCount:
        found = await info.context.service.jobs.count(self.search)
        return TotalCount(count=found.rows, is_exact=found.exact)


async def jobs(info: Info, asked: Asked) -> JobConnection:
    """A page of jobs."""
    with_texts = shows_texts()
    async with current().reading if with_texts else nullcontext():
        current().spend()
        found = await info.context.service.jobs.page(asked.search, asked.position, asked.limit, with_texts=with_texts)
        fields = asked.connection(found, ContainerJob.of)
    return JobConnection(**fields, search=asked.search)


async def decisions(info: Info, asked: Asked) -> Connection[RoutingDecision]:
    """A page of decisions."""
    found = await info.context.service.decisions.page(asked.search, asked.position, asked.limit)
    return Connection(**asked.connection(found, RoutingDecision.of))
