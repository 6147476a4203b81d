"""Answers to fields that only show what an object has, past graphql-core's machinery.

graphql-core takes ten times as long for such a field as reading it does. What is not as it should be (a null where none
may be, a value that is not of its type, an attribute that raises) is left to graphql-core, which meets it again and
reports it. Reading has no effects but on the budget of the operation, which gets back what was spent in vain.
"""

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

from graphql import (
    GRAPHQL_MAX_INT,
    GRAPHQL_MIN_INT,
    GraphQLBoolean,
    GraphQLID,
    GraphQLInt,
    GraphQLObjectType,
    GraphQLString,
    is_enum_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)
from graphql.execution.executor import Executor

Read = Callable[[Any], Any]
Coerce = Callable[[Any], Any]
"""Makes the answer of a value that is not None."""

SENT_AS_THEY_ARE = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool}
"""By type of the schema, the Python type whose values need no coercion."""


class NotPlainError(Exception):
    """A value that graphql-core has to look at."""


class PlainField(NamedTuple):
    """A field without arguments whose value is an attribute of its object, or what a method makes of that alone.

    `type` is its type without non-null, `nullable` whether it may be null.
    """

    read: Read
    type: Any
    nullable: bool
    is_attribute: bool


class PlainLeaf(NamedTuple):
    """A plain field with a scalar or an enumeration."""

    read: Read
    coerce: Coerce
    nullable: bool


@cache
def fields(kind: GraphQLObjectType) -> dict[str, PlainField]:
    """The plain fields of a type, by name."""
    found = {"__typename": PlainField(lambda _: kind.name, GraphQLString, False, True)}
    for name, field in kind.fields.items():
        definition = field.extensions.get("strawberry-definition")
        if definition is None or definition.extensions or field.args:
            continue
        inner, may_be_null = nullable(field.type)
        if getattr(field.resolve, "_is_default", False):
            found[name] = PlainField(attrgetter(definition.python_name), inner, may_be_null, True)
        elif (resolver := definition.base_resolver) and not (
            definition.is_async or resolver.info_parameter or resolver.parent_parameter
        ):
            found[name] = PlainField(resolver.wrapped_func, inner, may_be_null, False)
    return found


@cache
def leaves(kind: GraphQLObjectType) -> dict[str, PlainLeaf]:
    """The attributes of a type that are scalars and enumerations, by the name of their field."""
    return {
        name: PlainLeaf(field.read, _leaf(field.type), field.nullable)
        for name, field in fields(kind).items()
        if field.is_attribute and is_leaf_type(field.type)
    }


def of_objects(executor: Executor[Any], kind: GraphQLObjectType, details: Any) -> Coerce | None:
    """What answers the selection of some fields of an object, and raises NotPlainError or any other error if it cannot.

    None: something is selected that is not plain.
    """
    grouped, deferred, _ = executor.collect_subfields(kind, details)
    if deferred:
        return None
    known = fields(kind)
    parts: list[tuple[str, Read, Coerce, bool]] = []
    for name, selected in grouped.items():
        field = known.get(selected[0].node.name.value)
        coerce = _coercion(executor, field.type, selected) if field is not None else None
        if field is None or coerce is None:
            return None
        parts.append((name, field.read, coerce, field.nullable))
    is_type_of = kind.is_type_of

    def answer(value: Any) -> dict[str, Any]:
        if is_type_of is not None and not is_type_of(value, None):  # type: ignore[arg-type]
            raise NotPlainError
        shown = {}
        for name, read, coerce, nullable in parts:
            found = read(value)
            if found is not None:
                shown[name] = coerce(found)
            elif nullable:
                shown[name] = None
            else:
                raise NotPlainError
        return shown

    return answer


def of_lists(coerce: Coerce, may_be_null: bool) -> Coerce:
    """What answers a list whose items `coerce` answers, and may be null or not."""

    def answer(values: Any) -> list[Any]:
        if type(values) is not list:
            raise NotPlainError
        if None not in values:
            return [coerce(value) for value in values]
        if not may_be_null:
            raise NotPlainError
        return [None if value is None else coerce(value) for value in values]

    return answer


def _coercion(executor: Executor[Any], of: Any, details: Any) -> Coerce | None:
    if is_leaf_type(of):
        return _leaf(of)
    if is_object_type(of):
        return of_objects(executor, of, details)
    if is_list_type(of):
        inner, may_be_null = nullable(of.of_type)
        coerce = _coercion(executor, inner, details)
        return coerce and of_lists(coerce, may_be_null)
    return None


@cache
def _leaf(of: Any) -> Coerce:
    coerce: Coerce = of.coerce_output_value
    if is_enum_type(of):
        return _Names(coerce).__getitem__
    if of is GraphQLInt:
        return lambda value: (
            value if type(value) is int and GRAPHQL_MIN_INT <= value <= GRAPHQL_MAX_INT else coerce(value)
        )
    kind = SENT_AS_THEY_ARE.get(of)
    return coerce if kind is None else lambda value: value if type(value) is kind else coerce(value)


class _Names(dict[Any, Any]):
    """The names of the values of an enumeration."""

    def __init__(self, coerce: Coerce) -> None:
        super().__init__()
        self._coerce = coerce

    def __missing__(self, value: Any) -> Any:
        self[value] = name = self._coerce(value)
        return name


def nullable(of: Any) -> tuple[Any, bool]:
    """A type without non-null, and whether it may be null."""
    return (of.of_type, False) if is_non_null_type(of) else (of, True)
