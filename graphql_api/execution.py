"""A correction of how graphql-core executes subscriptions."""

from typing import Any

from graphql.execution.executor import Executor
from graphql.pyutils import RefMap
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext


class ExecutionContext(StrawberryGraphQLCoreExecutionContext):
    """Frees the memory of each event of a subscription.

    graphql-core 3.3 keeps the collected fields of every event for as long as the subscription lasts: more than a
    kilobyte per event. tests/unit/test_private_apis.py fails when the private attributes used here change.
    """

    def build_per_event_executor(self, payload: Any) -> Executor[Any]:
        """An executor for one event, with caches of its own."""
        executor = super().build_per_event_executor(payload)
        executor._relevant_sub_fields = {}  # noqa: SLF001 - otherwise shared by all events
        executor._stream_usages = RefMap()  # noqa: SLF001
        return executor
