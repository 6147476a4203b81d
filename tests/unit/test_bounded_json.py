"""JSON from outside is read only when it does not have too many values."""

import json

import orjson
import pytest

from container_manager import bounded_json


@pytest.mark.parametrize(
    "text",
    ["[" + "[]," * 5_000 + "[]]", json.dumps({str(at): at for at in range(5_000)}), json.dumps(["a\\\"'[,"] * 5_000)],
    ids=["lists", "object", "texts"],
)
def test_too_many_values_are_not_read(text: str) -> None:
    with pytest.raises(bounded_json.TooManyValuesError, match="more than 1000 values"):
        bounded_json.loads(text, 1000)
    assert bounded_json.loads(text.encode(), 10_000) == json.loads(text)


@pytest.mark.parametrize("text", ["a,b" * 10_000, '"[{,' * 10_000, "\\" * 9_999, '\\",' * 10_000])
def test_what_a_text_contains_is_no_value(text: str) -> None:
    assert bounded_json.loads(json.dumps({"text": text, "same": [text]}), 10) == {"text": text, "same": [text]}


@pytest.mark.parametrize("text", ["", "{", '"\ud800"', "[" * 5_000, "1e400x"])
def test_what_is_no_json_is_an_error(text: str) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        bounded_json.loads(text, 100_000)
