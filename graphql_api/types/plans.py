"""Plans, and the summary of what waits."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Self

import strawberry
from graphql import GraphQLError

from container_manager import models
from container_manager.domain.kinds import ExecutorType
from container_manager.routing import types as routing_types
from container_manager.routing.advice import advise
from container_manager.routing.types import Evaluation, HostState
from container_manager.store import threads
from graphql_api.context import Info
from graphql_api.cost import MOST_PLANNED_HOSTS
from graphql_api.enums import Strategy, Verdict
from graphql_api.ids import from_cursor, page_size
from graphql_api.limits import LARGEST_PAGE
from graphql_api.types.hosts import ExecutorHost, host
from graphql_api.types.jobs import ContainerJob, job
from graphql_api.types.pages import Connection
from graphql_api.types.results import NotFound, RejectionCount, RoutingRefused, ValidationFailed
from graphql_api.types.verdicts import HostVerdict, host_verdicts


@strawberry.type(description="Where a job would go.")
class Placement:
    executor_type: ExecutorType
    strategy: Strategy
    reason: str
    host_name: str
    decision: strawberry.Private[routing_types.Decision]
    most: strawberry.Private[int]
    supposed: strawberry.Private[models.ExecutorHost | None]

    @strawberry.field(description="Where it would go. The id of a host that is only supposed exists nowhere else.")
    async def host(self, info: Info) -> ExecutorHost:
        if self.supposed is not None:
            return ExecutorHost.of(self.supposed)
        found = await host(info, self._state.id)
        if found is None:
            raise GraphQLError(f"Host {self._state.name} has just been deleted.", extensions={"code": "NOT_FOUND"})
        return found

    @strawberry.field(
        description="Every host that was looked at, with every check; the chosen one first. All placements of a plan "
        f"together show at most {MOST_PLANNED_HOSTS}."
    )
    async def hosts(self, info: Info, first: int | None = None, after: str | None = None) -> Connection[HostVerdict]:
        start, limit = from_cursor(after) or 0, page_size(first, self.most)
        return await host_verdicts(info, self.decision.evaluation, self._state.id, start, limit)

    @property
    def _state(self) -> HostState:
        assert self.decision.host is not None  # noqa: S101 - refusals have another type
        return self.decision.host

    @classmethod
    def of(
        cls, decision: routing_types.Decision, state: HostState, most: int, supposed: models.ExecutorHost | None
    ) -> Self:
        return cls(
            most=most,
            supposed=supposed,
            host_name=state.name,
            executor_type=ExecutorType(state.executor_type),
            strategy=Strategy(decision.evaluation.requirements.strategy),
            reason=decision.reason,
            decision=decision,
        )


def planned(
    decisions: Sequence[routing_types.Decision], supposed: Mapping[int, models.ExecutorHost]
) -> list[Placement | RoutingRefused]:
    """The results of a plan. `supposed`: the hosts that were added to the fleet.

    Suggestions are for the fleet as the plan has filled it, computed once per evaluation.
    """
    asked: dict[int, asyncio.Task[list[routing_types.Suggestion]]] = {}

    async def suggestions(evaluation: Evaluation) -> list[routing_types.Suggestion]:
        if id(evaluation) not in asked:
            work = threads.compute(advise, evaluation.hosts, evaluation.requirements)
            asked[id(evaluation)] = asyncio.create_task(work)
        return await asked[id(evaluation)]

    most = min(max(MOST_PLANNED_HOSTS // max(len(decisions), 1), 1), LARGEST_PAGE)
    return [
        RoutingRefused.by(decision, partial(suggestions, decision.evaluation))
        if decision.host is None
        else Placement.of(decision, decision.host, most, supposed.get(decision.host.id))
        for decision in decisions
    ]


PlanResult = Annotated[Placement | RoutingRefused | ValidationFailed | NotFound, strawberry.union("PlanResult")]


@strawberry.type(description="Where a job that waits would go.")
class WaitingPlacement:
    host_name: str
    reason: str
    job: ContainerJob | None = strawberry.field(description="Null when it has just been deleted.")

    @classmethod
    async def of(cls, info: Info, decision: routing_types.Decision) -> Self:
        assert decision.host is not None  # noqa: S101 - it was placed
        return cls(host_name=decision.host.name, reason=decision.reason, job=await job(info, decision.key))


@strawberry.type
class RoutingPlan:
    placements: list[PlanResult] = strawberry.field(description="One for each job, in the order given.")
    waiting_placed: int = strawberry.field(description="How many of the jobs that wait already would get a host.")
    decisions: strawberry.Private[Sequence[routing_types.Decision]]

    @strawberry.field(description="Jobs that wait already and would get a host, the oldest first.")
    async def waiting(self, info: Info, first: int = 100) -> list[WaitingPlacement]:
        return await asyncio.gather(
            *(WaitingPlacement.of(info, decision) for decision in self.decisions[: page_size(first)])
        )


@strawberry.type(description="What waits, by what it waits for.")
class QueueGroup:
    verdict: Verdict
    jobs: int
    oldest_submitted_at: datetime
    rejections: list[RejectionCount]


@strawberry.type
class QueueSummary:
    pending: int
    active: int
    oldest_submitted_at: datetime | None
    groups: list[QueueGroup]
