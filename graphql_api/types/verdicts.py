"""Checks of hosts for a job."""

from typing import Self

import strawberry

from container_manager.routing import types as routing_types
from container_manager.routing.types import Evaluation
from container_manager.store import decisions as decision_store
from graphql_api.context import Info
from graphql_api.enums import CheckCode, Verdict
from graphql_api.types.hosts import ExecutorHost, host
from graphql_api.types.pages import Connection
from graphql_api.types.results import verdict_of


@strawberry.type(description="One check of one host: what was needed and what there was.")
class CheckResult:
    code: CheckCode
    passed: bool
    verdict: Verdict
    needed: str
    available: str
    message: str

    @classmethod
    def of(cls, result: routing_types.CheckResult) -> Self:
        code = CheckCode(result.code)
        return cls(
            code=code,
            passed=result.passed,
            verdict=verdict_of(result.verdict),
            needed=result.needed,
            available=result.available,
            message=result.message if code is not CheckCode.OTHER else f"{result.code}: {result.message}",
        )


@strawberry.type(description="`host` is null once it has been deleted; the name stays.")
class HostVerdict:
    host_name: str
    verdict: Verdict
    checks: list[CheckResult]
    weight: float
    chosen: bool
    host_pk: strawberry.Private[int]

    @strawberry.field
    async def host(self, info: Info) -> ExecutorHost | None:
        return await host(info, self.host_pk)

    @classmethod
    def of(cls, verdict: decision_store.HostVerdict) -> Self:
        return cls(
            host_name=verdict.host_name,
            verdict=verdict_of(verdict.verdict),
            checks=[CheckResult.of(check) for check in verdict.checks],
            weight=verdict.weight,
            chosen=verdict.chosen,
            host_pk=verdict.host_id,
        )


async def host_verdicts(
    info: Info, evaluation: Evaluation | None, chosen: int | None, start: int, limit: int
) -> Connection[HostVerdict]:
    """A page of the hosts of an evaluation; empty when the evaluation has been deleted."""
    decisions = info.context.service.decisions
    found = await decisions.verdicts(evaluation, chosen, start, limit + 1) if evaluation else []
    nodes = [(start + i + 1, HostVerdict.of(verdict)) for i, verdict in enumerate(found[:limit])]
    return Connection[HostVerdict].of(nodes, more=len(found) > limit, before=start > 0)
