"""How graphql-core executes, where its own way does not do."""

from typing import Any

from graphql.execution.executor import Executor
from graphql.pyutils import RefMap
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext


class ExecutionContext(StrawberryGraphQLCoreExecutionContext):
    """Gives back what a subscription's event has needed.

    graphql-core 3.3 keeps each event's collected fields for as long as the subscription lasts: more than a kilobyte
    an event.
    """

    def build_per_event_executor(self, payload: Any) -> Executor[Any]:
        """An executor for one event, with memory of its own."""
        executor = super().build_per_event_executor(payload)
        executor._relevant_sub_fields = {}  # noqa: SLF001 - shared with all events otherwise
        executor._stream_usages = RefMap()  # noqa: SLF001
        return executor
