"""One execution and one encoding of each event for all subscribers with the same document, variables and role.

A subscription's resolver delivers finished messages here instead of yielding values to the library, whose path from a
value to a message costs several times as much as the message itself. Parsing, validation, arguments, errors, completion
and cancellation stay with the library.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Coroutine, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import orjson
from graphql import (
    REMOVE,
    SKIP,
    ArgumentNode,
    DocumentNode,
    FieldNode,
    GraphQLResolveInfo,
    NameNode,
    VariableDefinitionNode,
    VariableNode,
    Visitor,
    VisitorAction,
    print_ast,
    separate_operations,
    visit,
)
from strawberry.types.graphql import OperationType

from container_manager.domain.kinds import Role
from container_manager.events.audience import Prepare
from container_manager.store import threads
from container_manager.store.events import Event
from container_manager.store.transaction import Actor
from graphql_api.context import Context, Identity, Info
from graphql_api.operation import begun
from graphql_api.types.events import RoutingEvent

Batches = Callable[[Prepare | None], AsyncGenerator[Sequence[Event], None]]

FRESH_SECONDS = 1.0
"""For how long an encoded event is shared: it shows its job and host as they are at the time of encoding."""

BATCH_FIELD = "routingEventBatches"
EXECUTED_AT_ONCE = 50
"""Events that are executed in one turn of the event loop."""

SUBSCRIBERS = Actor("subscribers")


def encode(value: object) -> str:
    """JSON as text, because bytes would become a binary WebSocket frame."""
    return orjson.dumps(value, default=str).decode()


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation as the client sent it."""

    query: str
    variables: Mapping[str, Any] | None
    name: str | None


class _Shared(NamedTuple):
    """The result of one execution, which may still be in progress."""

    begun_at: float
    task: asyncio.Task[list[str]]
    ended: asyncio.Event

    async def result(self) -> list[str]:
        # Not awaiting the task itself: a subscriber that is cancelled must not cancel it for the others.
        if not self.task.done():
            await self.ended.wait()
        return self.task.result()


class Rendering:
    """One document with one set of variables for callers of one role. `listed`: whether it takes events in lists."""

    def __init__(self, operation: Operation, info: Info, context: Context, names: set[str], *, listed: bool) -> None:
        field = info._raw_info.field_nodes[0]  # noqa: SLF001 - no public way to the document
        self._schema = info.schema
        self._operation = operation
        self._context = context
        self._listed = listed
        self._field = (field.alias or field.name).value
        self._as_list = Operation(_for_lists(info._raw_info, names), _only(operation.variables, names), operation.name)  # noqa: SLF001
        self._texts: dict[int, tuple[_Shared, int]] = {}
        """By event id: the execution that included it, and its index there."""
        self._with_errors: dict[tuple[int, ...], _Shared] = {}
        self._prepared: tuple[Sequence[Event], list[str]] = ((), [])

    async def payloads(self, events: Sequence[Event]) -> list[str]:
        """The message payloads for these events: one each, or one for all of them."""
        prepared, payloads = self._prepared
        return payloads if events is prepared else await self._payloads(events)

    async def _payloads(self, events: Sequence[Event]) -> list[str]:
        texts = await self._encoded(events)
        if None in texts:
            return await self._one_by_one(events)
        head = f'{{"data":{{{encode(self._field)}:'
        if self._listed:
            return [f"{head}[{','.join(texts)}]}}}}"]
        return [f"{head}{text}}}}}" for text in texts]

    async def prepare(self, events: Sequence[Event]) -> None:
        """Execute and encode these events before their subscribers get them."""
        self._prepared = (events, await self._payloads(events))

    async def _encoded(self, events: Sequence[Event]) -> list[Any]:
        """The JSON of each event; None if the execution that included it had an error."""
        since = time.monotonic() - FRESH_SECONDS
        if any(event.id not in self._texts or self._texts[event.id][0].begun_at < since for event in events):
            self._forget(since)
            new = [event for event in events if event.id not in self._texts]
            shared = self._share(self._encode(new))
            self._texts |= {event.id: (shared, index) for index, event in enumerate(new)}
        found = [self._texts[event.id] for event in events]
        results = [(await shared.result(), index) for shared, index in found]
        return [texts[index] if texts else None for texts, index in results]

    async def _one_by_one(self, events: Sequence[Event]) -> list[str]:
        """Payloads with errors. Their paths contain list indexes, so different batches cannot share them."""
        key = tuple(event.id for event in events)
        if key not in self._with_errors or self._with_errors[key].begun_at < time.monotonic() - FRESH_SECONDS:
            self._with_errors[key] = self._share(self._execute_one_by_one(events))
        return await self._with_errors[key].result()

    def _share(self, work: Coroutine[Any, Any, list[str]]) -> _Shared:
        ended = asyncio.Event()
        with threads.fanout_thread():
            task = asyncio.create_task(work)
        task.add_done_callback(lambda _: ended.set())
        return _Shared(time.monotonic(), task, ended)

    def _forget(self, since: float) -> None:
        self._texts = {key: entry for key, entry in self._texts.items() if entry[0].begun_at >= since}
        self._with_errors = {key: entry for key, entry in self._with_errors.items() if entry.begun_at >= since}

    async def _encode(self, events: Sequence[Event]) -> list[str]:
        texts: list[str] = []
        for begin in range(0, len(events), EXECUTED_AT_ONCE):
            await asyncio.sleep(0)
            values = [RoutingEvent.of(event) for event in events[begin : begin + EXECUTED_AT_ONCE]]
            result = await self.execute(self._as_list, values)
            if result.errors:
                return []
            texts += [encode(value) for value in result.data[BATCH_FIELD]]
        return texts

    async def _execute_one_by_one(self, events: Sequence[Event]) -> list[str]:
        values = [RoutingEvent.of(event) for event in events]
        return [await self._payload(value) for value in ([values] if self._listed else values)]

    async def _payload(self, value: object) -> str:
        result = await self.execute(self._operation, value)
        payload = {"data": result.data}
        if result.errors:
            payload["errors"] = [error.formatted for error in result.errors]
        return encode(payload)

    async def execute(self, operation: Operation, value: object) -> Any:
        """Execute an operation on one event or a list of events."""
        # As the library executes a subscription's event: the operation, with the event as its root value.
        with begun(operation.query):
            return await self._schema.execute(
                operation.query,
                variable_values=dict(operation.variables or {}),
                context_value=self._context,
                root_value=value,
                operation_name=operation.name,
                allowed_operation_types=(OperationType.SUBSCRIPTION,),
            )


def _only(variables: Mapping[str, Any] | None, names: Container[str]) -> dict[str, Any]:
    return {name: value for name, value in (variables or {}).items() if name in names}


class Renderings:
    """The renderings in use, by everything on which their results depend."""

    def __init__(self) -> None:
        self._used: WeakValueDictionary[tuple[object, ...], Rendering] = WeakValueDictionary()

    def of(self, operation: Operation, info: Info, *, listed: bool) -> Rendering:
        """The rendering for this operation, shared with equal ones."""
        names = _variables_below(info._raw_info)  # noqa: SLF001
        values = orjson.dumps(_only(operation.variables, names), option=orjson.OPT_SORT_KEYS)
        role = info.context.identity.role if info.context.identity else Role.VIEWER
        key = (operation.query, operation.name, values, role)
        if (rendering := self._used.get(key)) is None:
            context = Context(info.context.service, "", Identity(SUBSCRIBERS, role))
            self._used[key] = rendering = Rendering(operation, info, context, names, listed=listed)
        return rendering


def _variables_below(info: GraphQLResolveInfo[Any]) -> set[str]:
    """The variables on which the encoding of an event depends.

    The arguments of the root field do not count: they only select events, by the cursor and the filter.
    """
    found: set[str] = set()

    class Below(Visitor):
        def enter_variable_definition(self, *_: Any) -> VisitorAction:
            return SKIP

        def enter_argument(self, node: ArgumentNode, *_: Any) -> VisitorAction:
            own = (argument for root in info.field_nodes for argument in root.arguments or ())
            return SKIP if any(node is argument for argument in own) else None

        def enter_variable(self, node: VariableNode, *_: Any) -> None:
            found.add(node.name.value)

    for definition in (info.operation, *info.fragments.values()):
        visit(definition, Below())
    return found


def _for_lists(info: GraphQLResolveInfo[Any], names: Container[str]) -> str:
    """The same document for lists of events, which cost less to execute than single events."""

    class ForLists(Visitor):
        def enter_variable_definition(self, node: VariableDefinitionNode, *_: Any) -> VisitorAction:
            return None if node.variable.name.value in names else REMOVE

        def enter_field(self, node: FieldNode, *_: Any) -> FieldNode | None:
            if not any(node is root for root in info.field_nodes):
                return None
            return FieldNode(
                name=NameNode(value=BATCH_FIELD),
                arguments=(),
                directives=node.directives,
                selection_set=node.selection_set,
            )

    # Only this operation's fragments: those of others may use variables that it does not define.
    parts = separate_operations(DocumentNode(definitions=(info.operation, *info.fragments.values())))
    name = info.operation.name.value if info.operation.name else ""
    return print_ast(visit(parts[name], ForLists()))


@dataclass(frozen=True, slots=True)
class Delivery:
    """An operation in progress whose transport takes finished messages: `send` takes the payload of one."""

    renderings: Renderings
    operation: Operation
    send: Callable[[str], Awaitable[None]]


delivery: ContextVar[Delivery | None] = ContextVar("delivery", default=None)
"""Set by the transport for the operation that it runs."""


async def deliver(info: Info, batches: Batches, *, listed: bool) -> AsyncGenerator[Any, None]:
    """Send events as finished messages, or yield them when the transport does not take such.

    `batches` is called with the preparation to apply, and returns the events.
    """
    if (by := delivery.get()) is not None:
        # In a task of its own: otherwise each event would pass through all the generators that called this.
        await asyncio.create_task(_deliver(by, by.renderings.of(by.operation, info, listed=listed), batches))
        return
    async with aclosing(batches(None)) as source:
        async for events in source:
            values = [RoutingEvent.of(event) for event in events]
            for value in [values] if listed else values:
                yield value


async def _deliver(by: Delivery, rendering: Rendering, batches: Batches) -> None:
    async with aclosing(batches(rendering.prepare)) as source:
        async for events in source:
            for payload in await rendering.payloads(events):
                await by.send(payload)
