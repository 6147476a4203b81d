"""The output of jobs."""

import re
from datetime import UTC, datetime

import strawberry

from container_manager.store import outputs
from graphql_api.context import Info
from graphql_api.enums import LogStream
from graphql_api.ids import bad_input
from graphql_api.operation import current
from graphql_api.types.pages import PageInfo

_CURSOR = re.compile(r"\d{1,9}\.\d\.\d{1,19}\.\d{1,9}", re.ASCII)


TEXT = ("text",)


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


def log_line(line: outputs.LogLine) -> LogLine:
    """A line as clients see it."""
    return LogLine(
        cursor=".".join(map(str, line.cursor)),
        stream=LogStream(line.line.stream),
        at=datetime.fromtimestamp(line.line.at_ns / 1e9, tz=UTC),
        text=line.line.text,
    )


def log_cursor(cursor: str | None, argument: str = "after") -> outputs.LogCursor | None:
    """The position in a line's cursor; None stays None."""
    if cursor is None:
        return None
    if not _CURSOR.fullmatch(cursor):
        bad_input(f"{argument}: {cursor!r} is not the cursor of a line.")
    return outputs.LogCursor(*map(int, cursor.split(".")))


async def log_page(info: Info, job_id: int, after: outputs.LogCursor | None, limit: int) -> LogConnection:
    """At most `limit` lines of a job's output after a cursor."""
    current().spend()
    found = await info.context.outputs.load(outputs.Wanted(job_id, after, limit + 1))
    current().spend(characters=current().mentions(TEXT) * sum(len(line.line.text) for line in found))
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
