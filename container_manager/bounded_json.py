"""Reading JSON from outside. Only to read it can take seconds, when it has millions of values in a few megabytes."""

from typing import Any

import orjson


class TooManyValuesError(ValueError):
    """The text has more values than were allowed."""


def loads(text: str | bytes, most: int) -> Any:
    """Read JSON text of some `most` values at most.

    Raises:
        TooManyValuesError: it has more than twice as many; it was not read.
        orjson.JSONDecodeError: it is not JSON, has lone surrogates, or is nested too deeply.
    """
    if _has_more_values(text.encode(errors="replace") if isinstance(text, str) else text, 2 * most):
        raise TooManyValuesError(f"it has more than {most} values")
    return orjson.loads(text)


def _has_more_values(text: bytes, most: int) -> bool:
    if _separators(text) <= most:
        return False
    # Only those outside of strings count.
    text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    return text.count(b'"') > 2 * most or sum(map(_separators, text.split(b'"')[::2])) > most


def _separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")
