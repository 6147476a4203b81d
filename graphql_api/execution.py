"""Corrections of how graphql-core executes operations."""

from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from graphql import GraphQLObjectType, is_object_type
from graphql.execution.executor import Executor
from graphql.pyutils import Path, RefMap
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from graphql_api import plain
from graphql_api.operation import current


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

        Most are plain. All others, and those with an error, go graphql-core's way.
        """
        leaves, results, rest = plain.leaves(parent_type), dict[str, Any](), {}
        for name, details in grouped_field_set.items():
            results[name] = None
            if (field := leaves.get(details[0].node.name.value)) is None:
                rest[name] = details
                continue
            try:
                value = field.read(source_value)
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

    def complete_list_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Path, result: Any, position_context: Any
    ) -> Any:
        """The answers of the items of a list, at once when all that is selected of them is plain."""
        kind, may_be_null = plain.nullable(return_type.of_type)
        # For a single item, finding out would take as long as it saves.
        if is_object_type(kind) and type(result) is list and len(result) > 1:
            answer = self._plain(kind, field_details_list)
            if answer is not None:
                # graphql-core meets an error again, and reports it.
                with suppress(Exception), current().attempt():
                    return plain.of_lists(answer, may_be_null)(result)
        return super().complete_list_value(return_type, field_details_list, info, path, result, position_context)

    def _plain(self, kind: GraphQLObjectType, details: Any) -> plain.Coerce | None:
        known: dict[int, tuple[Any, plain.Coerce | None]] = vars(self).setdefault("_plain_answers", {})
        if id(details) not in known:
            # The details are kept with their answer, so that no others get the same id.
            known[id(details)] = details, plain.of_objects(self, kind, details)
        return known[id(details)][1]

    def build_per_event_executor(self, payload: Any) -> Executor[Any]:
        """An executor for one event, with caches of its own.

        graphql-core 3.3 keeps the collected fields of every event for as long as the subscription lasts: more than a
        kilobyte per event.
        """
        executor = super().build_per_event_executor(payload)
        executor._relevant_sub_fields = {}  # noqa: SLF001 - otherwise shared by all events
        executor._stream_usages = RefMap()  # noqa: SLF001
        vars(executor).pop("_plain_answers", None)
        return executor
