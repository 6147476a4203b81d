"""Structured logs, by structlog: a record has the fields that were given as `extra` or are bound in its context."""

import logging
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name

__all__ = ["bound_contextvars", "formatter"]

Entry = MutableMapping[str, Any]


def _with_error(_: Any, __: str, entry: Entry) -> Entry:
    """Name the traceback `error`, as the other fields are named for people who search the logs."""
    if (error := entry.pop("exception", None)) is not None:
        entry["error"] = error
    return entry


_FIELDS: list[Any] = [
    merge_contextvars,
    ExtraAdder(),
    add_log_level,
    add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
]
_AS_JSON: list[Any] = [
    structlog.processors.format_exc_info,
    _with_error,
    structlog.processors.EventRenamer("message"),
    structlog.processors.JSONRenderer(ensure_ascii=False),
]
_AS_TEXT: list[Any] = [structlog.dev.ConsoleRenderer(colors=False, timestamp_key="at")]


def formatter(style: str) -> logging.Formatter:
    """The formatter of every record: `json` for one object per line, `text` for people at a terminal."""
    rendered = _AS_JSON if style == "json" else _AS_TEXT
    return ProcessorFormatter(
        foreign_pre_chain=_FIELDS, processors=[ProcessorFormatter.remove_processors_meta, *rendered]
    )
