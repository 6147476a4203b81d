"""Media types and statuses of GraphQL over HTTP."""

import pytest

from graphql_api.transports.http import GRAPHQL_JSON, JSON, is_json, preferred_type, status_of


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("text/html", JSON),
        ("application/json", JSON),
        ("application/graphql-response+json", GRAPHQL_JSON),
        ("application/graphql-response+json, application/json;q=0.9", GRAPHQL_JSON),
        ("application/graphql-response+json;q=0.5, application/json", JSON),
        ("application/json, application/graphql-response+json", JSON),
        ("application/graphql-response+json, application/json, */*", GRAPHQL_JSON),
        ("application/graphql-response+json;q=0, */*", JSON),
        ("text/event-stream, application/graphql-response+json;charset=utf-8", GRAPHQL_JSON),
    ],
)
def test_the_type_of_the_answer_is_the_clients_choice(accept: str, expected: str) -> None:
    assert preferred_type(accept) == expected


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", True),
        ("Application/JSON; charset=UTF-8", True),
        ('application/json; charset="utf-8"', True),
        ("application/json; charset=utf-16", False),
        ("text/plain; application/json", False),
        ("application/jsonp", False),
        ("", False),
    ],
)
def test_a_body_must_be_json_in_utf_8(content_type: str, expected: bool) -> None:
    assert is_json(content_type) == expected


def error(code: str | None = None, path: list[str] | None = None) -> dict:
    found: dict = {"message": "no"} | ({"path": path} if path else {})
    return found | ({"extensions": {"code": code}} if code else {})


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"data": {"a": 1}}, 200),
        ({"data": {"a": None}, "errors": [error("FORBIDDEN", ["a"])]}, 200),
        ({"data": None, "errors": [error(path=["a"])]}, 200),
        ({"data": None, "errors": [error()]}, 400),
        ({"errors": [error("BAD_USER_INPUT")]}, 400),
        ({"data": None, "errors": [error("UNAUTHENTICATED")]}, 401),
        ({"data": None, "errors": [error("FORBIDDEN", ["a"])]}, 403),
        ({"data": None, "errors": [error("INTERNAL", ["a"])]}, 500),
        ({"data": None, "errors": [error("UNAVAILABLE", ["a"])]}, 503),
    ],
)
def test_the_status_says_whether_anything_was_executed(answer: dict, status: int) -> None:
    assert status_of(answer) == status
