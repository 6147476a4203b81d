"""Lines of output."""

from datetime import UTC, datetime

import strawberry

from container_manager.executors.output import OutputLine
from graphql_api.enums import LogStream
from graphql_api.ids import to_cursor
from graphql_api.pages import PageInfo


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


def log_page(lines: list[OutputLine], start: int, limit: int) -> LogConnection:
    """So many lines from the one at `start`."""
    # A line's cursor is its number, from 1.
    edges = [
        LogEdge(
            cursor=(cursor := to_cursor(start + offset + 1)),
            node=LogLine(
                cursor=cursor,
                stream=LogStream(line.stream),
                at=datetime.fromtimestamp(line.at_ns / 1e9, tz=UTC),
                text=line.text,
            ),
        )
        for offset, line in enumerate(lines[start : start + limit])
    ]
    return LogConnection(
        edges=edges,
        page_info=PageInfo(
            has_next_page=start + limit < len(lines),
            has_previous_page=start > 0,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
    )
