"""Corrections of how graphql-core executes operations."""

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, NamedTuple

from graphql import GraphQLObjectType, is_leaf_type, is_non_null_type
from graphql.execution.executor import Executor
from graphql.pyutils import Path, RefMap
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext


class _Plain(NamedTuple):
    """A field that is an attribute of its object and has no arguments; `coerce` makes the answer of its value."""

    attribute: str
    coerce: Callable[[Any], Any]
    nullable: bool


@cache
def plain_fields(kind: GraphQLObjectType) -> dict[str, _Plain]:
    """The plain fields of a type, by name."""
    found = {}
    for name, field in kind.fields.items():
        inner = field.type.of_type if is_non_null_type(field.type) else field.type
        definition = field.extensions.get("strawberry-definition")
        if is_leaf_type(inner) and not field.args and getattr(field.resolve, "_is_default", False) and definition:
            found[name] = _Plain(definition.python_name, inner.coerce_output_value, inner is field.type)
    return found


async def _updated(results: dict[str, Any], others: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    results.update(await others)
    return results


class ExecutionContext(StrawberryGraphQLCoreExecutionContext):
    """Answers plain fields at once, and frees the memory of each event of a subscription.

    tests/unit/test_private_apis.py fails when the private attributes used here change.
    """

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: Any,
        position_context: Any,
    ) -> Any:
        """The answers of some fields of one object, by their names in the answer; or an awaitable of them.

        Most fields of an answer are plain, and graphql-core takes ten times as long for one as reading it does. All
        others, and those with an error, go its way.
        """
        plain, results, rest = plain_fields(parent_type), dict[str, Any](), {}
        for name, details in grouped_field_set.items():
            results[name] = None
            if (field := plain.get(details[0].node.name.value)) is None:
                rest[name] = details
                continue
            try:
                value = getattr(source_value, field.attribute)
                if value is not None:
                    results[name] = value = field.coerce(value)
            except Exception:  # noqa: BLE001 - graphql-core meets it again, and reports it
                value = None
                rest[name] = details
            if value is None and not field.nullable:
                rest[name] = details
        if not rest:
            return results
        others: Any = super().execute_fields(parent_type, source_value, path, rest, position_context)
        if self.is_awaitable(others):
            return _updated(results, others)
        results.update(others)
        return results

    def build_per_event_executor(self, payload: Any) -> Executor[Any]:
        """An executor for one event, with caches of its own.

        graphql-core 3.3 keeps the collected fields of every event for as long as the subscription lasts: more than a
        kilobyte per event.
        """
        executor = super().build_per_event_executor(payload)
        executor._relevant_sub_fields = {}  # noqa: SLF001 - otherwise shared by all events
        executor._stream_usages = RefMap()  # noqa: SLF001
        return executor
