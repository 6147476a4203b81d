"""The schema. `schema.graphql` beside it is what this exports, and CI compares the two."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import strawberry
from graphql import OperationType, get_operation_ast
from graphql.validation.rules import overlapping_fields_can_be_merged
from strawberry.extensions import AddValidationRules
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.types.base_scalars import DateTimeDefinition

from graphql_api import aside, coercion, descriptions
from graphql_api.documents import DocumentCache
from graphql_api.errors import HANDLERS, MaskInternalErrors
from graphql_api.execution import ExecutionContext
from graphql_api.limits import MAX_COMPARISONS, WithinLimits
from graphql_api.mutations import Mutation
from graphql_api.operation import current
from graphql_api.queries import Query
from graphql_api.subscriptions import Subscription

overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = MAX_COMPARISONS

coercion.install()

DATE_TIME = replace(
    DateTimeDefinition,
    description="A time in the form of RFC 3339. Those of the service are in UTC, and so is one without a zone.",
    specified_by_url="https://scalars.graphql.org/andimarek/date-time",
)

HEAVY_COST = 1000
"""Some 20 ms of CPU time."""

MANY_VALUES = 2000


class Schema(strawberry.Schema):
    """Executes operations so that none holds the event loop for long."""

    async def _execute_operation(self, execution_context: Any, *rest: Any) -> Any:
        known = current()
        operation = get_operation_ast(execution_context.graphql_document, execution_context.operation_name)
        if operation is None:
            return await super()._execute_operation(execution_context, *rest)
        if operation.operation is OperationType.QUERY and known.cost > HEAVY_COST:
            return await aside.run(lambda: self._with_own_loaders(execution_context, *rest))
        if known.values > MANY_VALUES:
            async with coercion.coerced_aside(self._schema, operation, execution_context.variables):
                return await super()._execute_operation(execution_context, *rest)
        return await super()._execute_operation(execution_context, *rest)

    async def _with_own_loaders(self, execution_context: Any, *rest: Any) -> Any:
        execution_context.context = replace(execution_context.context)
        return await super()._execute_operation(execution_context, *rest)


schema = Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    exception_handlers=HANDLERS,
    execution_context_class=ExecutionContext,
    extensions=[
        MaskInternalErrors,
        lambda: AddValidationRules([WithinLimits]),
        DocumentCache,
    ],
    config=StrawberryConfig(scalar_map={datetime: DATE_TIME}),
)
descriptions.describe(schema._schema)  # noqa: SLF001 - the schema as graphql-core has it
