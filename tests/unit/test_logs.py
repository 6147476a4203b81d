"""Structured logs: fields are kept, in JSON and in text."""

import json
import logging
import sys

import pytest

from container_manager.observability.logs import bound_contextvars, formatter


def record(message: str, *arguments: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("container_manager.x", logging.WARNING, __file__, 1, message, arguments, None)
    made.__dict__.update(fields)
    return made


def test_a_record_is_one_json_object_with_its_fields() -> None:
    with bound_contextvars(job=7, attempt=2):
        line = formatter("json").format(record("host %s: é\nnext", "h", host="h"))
    assert "\n" not in line
    entry = json.loads(line)
    assert entry.pop("at").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "container_manager.x",
        "message": "host h: é\nnext",
        "host": "h",
        "job": 7,
        "attempt": 2,
    }


def test_fields_of_the_context_end_with_it() -> None:
    with bound_contextvars(job=7):
        pass
    assert "job" not in json.loads(formatter("json").format(record("after")))


@pytest.mark.parametrize("style", ["json", "text"])
def test_an_exception_comes_with_its_trace(style: str) -> None:
    failed = record("a run broke off", job=7)
    try:
        raise RuntimeError("a bug")
    except RuntimeError:
        failed.exc_info = sys.exc_info()
    text = formatter(style).format(failed)
    assert "RuntimeError: a bug" in text
    if style == "json":
        assert "RuntimeError: a bug" in json.loads(text)["error"]


def test_text_shows_the_fields_too() -> None:
    text = formatter("text").format(record("removed %s", "x", host="h", job=7))
    assert "removed x" in text
    assert "host=h" in text
    assert "job=7" in text
    assert "\x1b" not in text, "no colours, which a file would keep"


def test_a_value_that_is_no_json_is_written_as_text() -> None:
    entry = json.loads(formatter("json").format(record("odd", value={1, 2}.__class__)))
    assert "set" in entry["value"]
