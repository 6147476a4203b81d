"""The tables of costs name fields that exist."""

import pytest
from graphql import parse

from graphql_api import cost
from graphql_api.schema import schema

FIELDS = {f"{name}.{field}" for name, kind in schema._schema.type_map.items() for field in getattr(kind, "fields", ())}


@pytest.mark.parametrize("table", ["OWN", "PER_HOST", "EACH", "LISTS"])
def test_every_field_with_a_cost_exists(table: str) -> None:
    assert set(getattr(cost, table)) <= FIELDS


def cost_of(query: str, **variables: object) -> float:
    return cost.cost(schema._schema, parse(query), variables, 100).units


@pytest.mark.parametrize(
    ("query", "varies"),
    [
        ("{ hosts(first: 10) { edges { cursor } } }", False),
        ("query($n: Int) { hosts(first: $n) { edges { cursor } } }", True),
        ("query($n: Int = 10) { ...F } fragment F on Query { hosts(last: $n) { edges { cursor } } }", True),
        ("query($j: [JobInput!]!) { planRouting(jobs: $j) { placements { __typename } } }", True),
        ("{ capacity { region } }", True),
        ("mutation($input: JobInput!) { submitJob(input: $input) { __typename } }", False),
    ],
)
def test_a_cost_that_may_change_is_not_kept(query: str, varies: bool) -> None:
    assert cost.cost(schema._schema, parse(query), None, 100).varies == varies


JOBS = [{"image": "a"}] * 1000


@pytest.mark.parametrize(
    ("cheap", "same"),
    [
        # A fragment costs what the field around it makes it cost.
        (
            "query($j: [JobInput!]!) { b: planRouting(jobs: $j) { placements { __typename } } }",
            'query($j: [JobInput!]!) { a: planRouting(jobs: [{image: "a"}]) { ...F } b: planRouting(jobs: $j) { ...F } } '
            "fragment F on RoutingPlan { placements { __typename } }",
        ),
        # A job is planned whether its placement is shown or not.
        (
            'query { planRouting(jobs: [{image: "a"}]) { placements { __typename } } }',
            "query($j: [JobInput!]!) { planRouting(jobs: $j) { __typename } }",
        ),
        ("{ hosts(first: 10) { edges { cursor } } }", "query($n: Int = 10) { hosts(first: $n) { edges { cursor } } }"),
    ],
)
def test_what_costs_at_least_as_much(cheap: str, same: str) -> None:
    assert cost_of(cheap, j=JOBS) <= cost_of(same, j=JOBS)


def test_a_long_history_costs_what_it_may_have() -> None:
    hour = cost_of("{ hosts(first: 50) { edges { node { history { start } } } } }")
    months = cost_of('{ hosts(first: 50) { edges { node { history(since: "2026-09-01T00:00:00Z") { start } } } } }')
    assert months > 10 * hour
