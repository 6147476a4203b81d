"""Errors as data: the members of result unions that say why a request was refused."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Self

import strawberry

from container_manager.routing import types as routing_types
from container_manager.routing.types import JobRequirements
from graphql_api.context import Info
from graphql_api.enums import CheckCode, Verdict


@strawberry.interface
class UserError:
    message: str


@strawberry.type(description="A field of an input that has no good value.")
class FieldError:
    field: str = strawberry.field(description="Its path in the input, such as config.url or inputs.0.image.")
    message: str = strawberry.field(description="What is wrong, in a sentence that names the field.")
    reason: str = strawberry.field(description="The same without the name of the field, to be shown beside it.")


@strawberry.type
class ValidationFailed(UserError):
    fields: list[FieldError]


@strawberry.type
class NotFound(UserError):
    pass


@strawberry.type
class Conflict(UserError):
    field: str | None = strawberry.field(
        default=None, description="The field of the input that does not fit, if it is one of them."
    )


@strawberry.type
class RejectionCount:
    code: CheckCode
    hosts: int


Suggest = Callable[[], Awaitable[list[routing_types.Suggestion]]]


def rejection_counts(counts: Iterable[Sequence[Any]]) -> list[RejectionCount]:
    """From pairs of (code, number of hosts)."""
    return [RejectionCount(code=CheckCode(code), hosts=hosts) for code, hosts in counts]


def verdict_of(verdict: routing_types.Verdict) -> Verdict:
    return Verdict[verdict.name]


@strawberry.type(
    description="A change, verified by routing again, that would let the job run; or two, where no single one would."
)
class Suggestion:
    message: str
    hosts: int = strawberry.field(description="How many hosts could take the job then.")


@strawberry.type
class RoutingRefused(UserError):
    verdict: Verdict
    rejections: list[RejectionCount]
    requirements: strawberry.Private[JobRequirements]
    suggest: strawberry.Private[Suggest | None] = None

    @strawberry.field(
        description="Changes of the job first, then of one host; each would let the job run now, if no other job came "
        "first. Where no single change would, each is two of them."
    )
    async def suggestions(self, info: Info) -> list[Suggestion]:
        if self.suggest is None:
            found = await info.context.suggestions.load(self.requirements)
        else:
            found = await self.suggest()
        return [Suggestion(message=suggestion.message, hosts=suggestion.hosts) for suggestion in found]

    @classmethod
    def by(cls, decision: routing_types.Decision, suggest: Suggest | None = None) -> Self:
        """From a decision. Suggestions are for the present fleet; `suggest` gives those for the fleet of a plan."""
        return cls(
            message=decision.reason,
            verdict=verdict_of(decision.verdict),
            rejections=rejection_counts(decision.evaluation.rejections().items()),
            requirements=decision.evaluation.requirements,
            suggest=suggest,
        )
