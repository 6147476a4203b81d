"""The schema. `schema.graphql` beside it is what this exports, and CI compares the two."""

import strawberry
from graphql.validation.rules import overlapping_fields_can_be_merged
from strawberry.extensions import AddValidationRules, MaxTokensLimiter
from strawberry.schema.config import StrawberryConfig

from graphql_api.documents import DocumentCache
from graphql_api.errors import HANDLERS, MaskInternalErrors
from graphql_api.execution import ExecutionContext
from graphql_api.limits import MAX_COMPARISONS, MAX_TOKENS, WithinLimits
from graphql_api.mutations import Mutation
from graphql_api.queries import Query
from graphql_api.subscriptions import Subscription

overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = MAX_COMPARISONS

schema = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    exception_handlers=HANDLERS,
    execution_context_class=ExecutionContext,
    extensions=[
        MaskInternalErrors,
        lambda: MaxTokensLimiter(max_token_count=MAX_TOKENS),
        lambda: AddValidationRules([WithinLimits]),
        DocumentCache,
    ],
    config=StrawberryConfig(),
)
