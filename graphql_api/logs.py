"""Lines of output."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import strawberry

from container_manager.store import attempts, threads
from graphql_api.enums import LogStream
from graphql_api.ids import bad_input
from graphql_api.pages import PageInfo

_CURSOR = re.compile(r"\d{1,9}\.\d\.\d{1,19}\.\d{1,9}", re.ASCII)


@strawberry.type
class LogLine:
    cursor: str
    stream: LogStream
    at: datetime
    text: str


@strawberry.type
class LogEdge:
    cursor: str
    node: LogLine


@strawberry.type
class LogConnection:
    edges: list[LogEdge]
    page_info: PageInfo


def log_line(line: attempts.LogLine) -> LogLine:
    """A line as clients see it."""
    return LogLine(
        cursor=".".join(map(str, line.cursor)),
        stream=LogStream(line.line.stream),
        at=datetime.fromtimestamp(line.line.at_ns / 1e9, tz=UTC),
        text=line.line.text,
    )


def log_cursor(cursor: str | None, argument: str = "after") -> attempts.LogCursor | None:
    """Undo a line's cursor."""
    if cursor is None:
        return None
    if not _CURSOR.fullmatch(cursor):
        bad_input(f"{argument}: {cursor!r} is not the cursor of a line.")
    return attempts.LogCursor(*map(int, cursor.split(".")))


async def log_page(parts: Sequence[attempts.Part], after: attempts.LogCursor | None, limit: int) -> LogConnection:
    """So many lines beyond a cursor."""
    found = await threads.read(attempts.page, parts, after, limit + 1)
    edges = [LogEdge(cursor=node.cursor, node=node) for node in map(log_line, found[:limit])]
    return LogConnection(
        edges=edges,
        page_info=PageInfo(
            has_next_page=limit < len(found),
            has_previous_page=after is not None,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
    )
