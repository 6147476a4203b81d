"""The schema. `schema.graphql` beside it is what this exports, and CI compares the two."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import strawberry
from graphql import GraphQLError, OperationType, get_operation_ast
from graphql.validation.rules import overlapping_fields_can_be_merged
from strawberry.exceptions import MissingQueryError
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.schema.types.base_scalars import DateTimeDefinition
from strawberry.types.execution import ExecutionResult, PreExecutionError

from graphql_api import aside, coercion, descriptions, documents, errors
from graphql_api.execution import ExecutionContext
from graphql_api.limits import MAX_COMPARISONS
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
    """Checks operations before it executes them, so that none holds the event loop for long, and masks errors.

    It does so in methods of its own: the library's extensions, made anew for each operation, take several times as
    long as the execution of a small one.
    """

    async def _prepare_operation_async(self, context: Any, extensions_runner: Any) -> PreExecutionError | None:  # noqa: ARG002
        if not context.query:
            raise MissingQueryError
        try:
            context.graphql_document = await documents.document_of(context.query)
        except GraphQLError as error:
            return PreExecutionError(data=None, errors=[error])
        try:
            kind = context.operation_type
        except RuntimeError as error:
            raise CannotGetOperationTypeError(context.operation_name) from error
        if kind not in context.allowed_operations:
            raise InvalidOperationTypeError(kind)
        refusals = await documents.refusals(context, context.graphql_document)
        return PreExecutionError(data=None, errors=refusals) if refusals else None

    async def _handle_execution_result(self, *arguments: Any, **more: Any) -> ExecutionResult:
        result = await super()._handle_execution_result(*arguments, **more)
        if result.errors:
            result.errors = errors.shown(result.errors)
        return result

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
    exception_handlers=errors.HANDLERS,
    execution_context_class=ExecutionContext,
    config=StrawberryConfig(scalar_map={datetime: DATE_TIME}),
)
descriptions.describe(schema._schema)  # noqa: SLF001 - the schema as graphql-core has it
