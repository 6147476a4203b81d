"""The fast path for variables gives the values and the errors of graphql-core."""

from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    build_schema,
    parse,
)
from graphql.execution import values as stock
from graphql.utilities.coerce_input_value import coerce_input_value
from hypothesis import given, settings
from hypothesis import strategies as st

from graphql_api import coercion
from graphql_api.schema import schema

OTHERS = build_schema("""
    enum Kind { A B }
    scalar Any
    input Inner { a: Int! = 3, b: [Kind!], again: Inner }
    input One @oneOf { a: Int, b: String }
    input Outer { inner: Inner = {a: 7, b: [A]}, one: One, ids: [[ID!]]!, free: Any, number: Float, yes: Boolean = true }
    type Query { f(outers: [Outer], outer: Outer!): Int }
""")
TYPES = [
    (schema._schema, kind)
    for kind in (
        "[JobInput!]!",
        "JobInput",
        "HostInput!",
        "[HostAssumption!]",
        "JobFilter",
        "RoutingEventFilter",
        "[ID!]",
    )
] + [(OTHERS, kind) for kind in ("[Outer]", "Outer!", "[Inner!]!", "[One]", "Kind", "[[Int!]!]")]

JUNK = st.sampled_from(
    [None, True, 0, -1, 2**31 - 1, 2**31, 3.0, 0.5, 1e308, float("inf"), float("nan"), 10**30, "", "A", "x", [], {}, [1], {"a": 1}]
)  # fmt: skip


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type, mostly valid ones."""
    if isinstance(kind, GraphQLNonNull):
        return values(kind.of_type)
    if isinstance(kind, GraphQLList):
        plain: st.SearchStrategy[Any] = st.lists(st.deferred(lambda: values(kind.of_type)), max_size=4)
    elif isinstance(kind, GraphQLInputObjectType):
        fields = {name: st.deferred(lambda field=field: values(field.type)) for name, field in kind.fields.items()}
        needed = {name for name, field in kind.fields.items() if isinstance(field.type, GraphQLNonNull)}
        optional = {name: value for name, value in fields.items() if name not in needed}
        plain = st.fixed_dictionaries({name: fields[name] for name in needed}, optional=optional)
    elif isinstance(kind, GraphQLEnumType):
        plain = st.sampled_from([*kind.values])
    else:
        plain = {"Int": st.integers(-5, 2**31), "Float": st.floats(), "Boolean": st.booleans()}.get(
            kind.name, st.text(max_size=5)
        )
    weights = [plain] * 15 + [JUNK]
    return st.integers(0, len(weights) - 1).flatmap(weights.__getitem__)


def coerced(given_schema: Any, kind: str, value: Any) -> Any:
    """The values, or the errors with their messages and places."""
    document = parse(f"query($v: {kind}) {{ __typename }}")
    definitions = document.definitions[0].variable_definitions
    found = stock.get_variable_values(given_schema, definitions, {"v": value}, max_errors=50)
    if isinstance(found, list):
        return {"errors": [(error.message, error.locations) for error in found]}
    return in_order(found.coerced)


def in_order(value: Any) -> Any:
    """The value in a form that can be compared: the order of fields does not matter, the types of numbers do."""
    if isinstance(value, dict):
        return sorted((name, in_order(one)) for name, one in value.items())
    return [in_order(one) for one in value] if isinstance(value, list) else repr(value)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TYPES).flatmap(lambda one: st.tuples(st.just(one), values(type_named(*one)))))
def test_values_and_errors_are_those_of_graphql_core(case: Any) -> None:
    (given_schema, kind), value = case
    fast = coerced(given_schema, kind, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock, "coerce_input_value", coerce_input_value)
        patch.setattr(stock, "input_is_nested_too_deeply", coercion._nested_too_deeply)
        slow = coerced(given_schema, kind, value)
    assert fast == slow


def type_named(given_schema: Any, kind: str) -> Any:
    if kind.endswith("!"):
        return GraphQLNonNull(type_named(given_schema, kind[:-1]))
    if kind.startswith("["):
        return GraphQLList(type_named(given_schema, kind[1:-1]))
    return given_schema.get_type(kind)


@pytest.mark.parametrize("depth", [50, 5_000])
def test_endless_nesting_is_an_error_as_before(depth: int) -> None:
    nested: dict[str, Any] = {"name": "x"}
    for _ in range(depth):
        nested = {"NOT": nested}
    found = coerced(schema._schema, "JobFilter", nested)
    assert ("errors" in found) == (depth == 5_000)


def test_the_fast_path_is_the_one_in_use() -> None:
    from graphql.execution import executor

    assert stock.coerce_input_value is coercion.coerce
    assert executor.get_variable_values is coercion._get_variable_values
