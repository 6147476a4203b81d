"""A fast path for the values of variables: input types are compiled once.

Thousands of inputs come in one request, and graphql-core looks at every field of a type for each of them. A value that
is not plainly valid goes through graphql-core as before, which also words its errors.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from math import isfinite
from typing import Any, NamedTuple

from graphql import (
    GraphQLBoolean,
    GraphQLError,
    GraphQLFloat,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    GraphQLString,
    OperationDefinitionNode,
    Undefined,
    get_named_type,
    is_required_input_field,
)
from graphql.execution import executor
from graphql.execution import values as stock
from graphql.execution.values import VariableValues
from graphql.utilities.coerce_input_value import coerce_default_value, coerce_input_value

from container_manager import configuration
from container_manager.store import threads

Coercer = Callable[[Any], Any]

LARGEST_INT = 2**31 - 1
MOST_ERRORS = 50
"""As graphql-core's executor has it."""

_nested_too_deeply = stock.input_is_nested_too_deeply


class _NotPlain(Exception):
    """The value is invalid, or valid in a way that graphql-core knows better."""


class _Fields(NamedTuple):
    """The fields of an input type: name and coercer by name, those that must be given, and the values of others."""

    by_name: dict[str, tuple[str, Coercer]]
    required: frozenset[str]
    defaults: dict[str, Any]


_ready: ContextVar[VariableValues | list[GraphQLError] | None] = ContextVar("ready", default=None)


def install() -> None:
    """Let graphql-core coerce variables with the functions of this module."""
    stock.coerce_input_value = coerce  # type: ignore[assignment, attr-defined]
    stock.input_is_nested_too_deeply = _is_nested_too_deeply  # type: ignore[assignment]
    executor.get_variable_values = _get_variable_values  # type: ignore[attr-defined]


@asynccontextmanager
async def coerced_aside(
    schema: GraphQLSchema, operation: OperationDefinitionNode, values: dict[str, Any]
) -> AsyncIterator[None]:
    """Coerce the variables of the operation that is executed in the block in a thread, before."""
    definitions = operation.variable_definitions or ()
    found = await threads.prepare_request(_get_variable_values, schema, definitions, values, max_errors=MOST_ERRORS)
    before = _ready.set(found)
    try:
        yield
    finally:
        _ready.reset(before)


def _get_variable_values(*args: Any, **options: Any) -> VariableValues | list[GraphQLError]:
    if (ready := _ready.get()) is not None:
        return ready
    # A hidden schema is not suggested either.
    return stock.get_variable_values(*args, **options | {"hide_suggestions": not configuration.current().introspection})


def coerce(value: Any, kind: GraphQLInputType) -> Any:
    """The coerced value, or Undefined if it is invalid; equal to that of graphql-core's `coerce_input_value`."""
    try:
        return _coercer(kind)(value)
    except _NotPlain:
        return coerce_input_value(value, kind)


def _is_nested_too_deeply(value: Any, kind: GraphQLInputType) -> bool:
    # The nesting of other types ends by itself.
    return _contains_itself(get_named_type(kind)) and _nested_too_deeply(value, kind)


@lru_cache
def _contains_itself(kind: Any) -> bool:
    seen, waiting = set(), [kind]
    while waiting:
        for field in getattr(waiting.pop(), "fields", {}).values():
            below = get_named_type(field.type)
            if below is kind:
                return True
            if below not in seen:
                seen.add(below)
                waiting.append(below)
    return False


def _coercer(kind: GraphQLInputType) -> Coercer:
    return _inner(kind.of_type) if isinstance(kind, GraphQLNonNull) else partial(_nullable, _inner(kind))


def _inner(kind: Any) -> Coercer:
    """The coercer of a type for values other than null, which it refuses."""
    if isinstance(kind, GraphQLList):
        return partial(_list, _coercer(kind.of_type))
    if isinstance(kind, GraphQLInputObjectType):
        return partial(_stock, kind) if kind.is_one_of else partial(_object, kind)
    return _LEAVES.get(kind.name) or partial(_leaf, kind.coerce_input_value)


def _nullable(inner: Coercer, value: Any) -> Any:
    return None if value is None else inner(value)


def _stock(kind: GraphQLInputType, value: Any) -> Any:
    if value is None or (found := coerce_input_value(value, kind)) is Undefined:
        raise _NotPlain
    return found


def _list(item: Coercer, value: Any) -> list[Any]:
    if type(value) is not list:
        raise _NotPlain
    return [item(one) for one in value]


def _object(kind: GraphQLInputObjectType, value: Any) -> Any:
    if type(value) is not dict:
        raise _NotPlain
    fields = _fields(kind)
    if not fields.required <= value.keys():
        raise _NotPlain
    coerced = fields.defaults.copy()
    by_name = fields.by_name
    try:
        for name, one in value.items():
            out_name, coercer = by_name[name]
            coerced[out_name] = coercer(one)
    except KeyError:
        raise _NotPlain from None
    return kind.out_type(coerced)


@lru_cache
def _fields(kind: GraphQLInputObjectType) -> _Fields:
    fields = kind.fields
    defaults = {field.out_name or name: coerce_default_value(field) for name, field in fields.items()}
    return _Fields(
        {name: (field.out_name or name, _coercer(field.type)) for name, field in fields.items()},
        frozenset(name for name, field in fields.items() if is_required_input_field(field)),
        {name: value for name, value in defaults.items() if value is not Undefined},
    )


def _leaf(coerce_leaf: Coercer, value: Any) -> Any:
    if value is None:
        raise _NotPlain
    try:
        found = coerce_leaf(value)
    except Exception:  # noqa: BLE001 - a scalar refuses a value by any error
        raise _NotPlain from None
    if found is Undefined:
        raise _NotPlain
    return found


def _string(value: Any) -> Any:
    return value if type(value) is str else _leaf(GraphQLString.coerce_input_value, value)


def _int(value: Any) -> Any:
    if type(value) is int and -LARGEST_INT - 1 <= value <= LARGEST_INT:
        return value
    return _leaf(GraphQLInt.coerce_input_value, value)


def _float(value: Any) -> Any:
    return value if type(value) is float and isfinite(value) else _leaf(GraphQLFloat.coerce_input_value, value)


def _boolean(value: Any) -> Any:
    return value if type(value) is bool else _leaf(GraphQLBoolean.coerce_input_value, value)


_LEAVES: dict[str, Coercer] = {"String": _string, "Int": _int, "Float": _float, "Boolean": _boolean}
