"""Parsing GraphQL documents."""

import gc

import pytest
from graphql import GraphQLSyntaxError
from graphql.language import Token

from graphql_api.documents import parsed


def _tokens() -> int:
    return sum(type(found) is Token for found in gc.get_objects())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{ " + "a " * 3900 + "}", None),
        ("{ " + "a " * 5000, "more than 4000 tokens"),
        ("{ " + "a " * 100 + "$", "Expected"),
        ("{a " + "#\n" * 3900 + "\x01", "Unexpected character"),
        ("{a" * 300 + "}" * 300, "nested too deeply"),
    ],
)
def test_tokens_are_freed_with_their_document(text: str, message: str | None) -> None:
    gc.collect()
    before = _tokens()
    gc.disable()
    try:
        if message is None:
            assert parsed(text).definitions
        else:
            with pytest.raises(GraphQLSyntaxError, match=message):
                parsed(text)
        assert _tokens() - before < 10
    finally:
        gc.enable()
