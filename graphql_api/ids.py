"""Global ids and cursors. They are opaque to clients, and validated when clients send them."""

import re
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NoReturn

from graphql import GraphQLError
from strawberry import relay

from container_manager.store.events import CursorExpiredError

LARGEST_ID = 2**63 - 1
LONGEST_CURSOR = 19
LONGEST_SHOWN = 60
NUMBERED = {"JobAttempt"}
"""Types whose ids have a number beside the primary key."""


def to_global(type_name: str, pk: int, number: int | None = None) -> str:
    # The library's function checks the types of its arguments, which takes several times as long.
    return b64encode(f"{type_name}:{pk if number is None else f'{pk}.{number}'}".encode()).decode()


def to_pk(type_name: str, global_id: str, argument: str = "id") -> int:
    """The primary key in a global id of that type.

    Raises:
        GraphQLError: BAD_USER_INPUT, it is malformed or the id of another type.
    """
    kind, pk, *_ = split(global_id, argument)
    if kind != type_name:
        bad_input(f"{argument}: {shown(global_id)} is an id of the type {kind}, not {type_name}.")
    return pk


def split(global_id: str, argument: str = "id") -> tuple[str, int] | tuple[str, int, int]:
    """The type's name and the primary key in a global id; of an attempt, its job's and its number.

    Raises:
        GraphQLError: BAD_USER_INPUT, it is malformed.
    """
    try:
        kind, text = relay.from_base64(global_id)
        text, dot, rest = text.partition(".")
        pk, number = (int(part or 0) if len(part) <= LONGEST_CURSOR else 0 for part in (text, rest))
    except ValueError:
        bad_input(f"{argument}: {shown(global_id)} is not an id.")
    if not (0 < pk <= LARGEST_ID and bool(dot) == (kind in NUMBERED) and 0 <= number <= LARGEST_ID):
        bad_input(f"{argument}: {shown(global_id)} is not an id.")
    return (kind, pk, number) if dot else (kind, pk)


def to_cursor(pk: int) -> str:
    return str(pk)


def from_cursor(cursor: str | None, argument: str = "after") -> int | None:
    """The position in a cursor; None stays None.

    Raises:
        GraphQLError: BAD_USER_INPUT, it is malformed.
    """
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= LONGEST_CURSOR and int(cursor) <= LARGEST_ID):
        bad_input(f"{argument}: {shown(cursor)} is not a cursor.")
    return int(cursor)


LARGEST_KEY = 2**53
"""Of a priority, or of a time in microseconds: some time in the year 2255."""


def to_keys(key: Sequence[int]) -> str:
    """A cursor for a position in an order of several columns, the last of which is an id."""
    return "_".join(map(str, key))


def from_keys(cursor: str | None, columns: int, argument: str) -> list[int] | None:
    """The numbers in such a cursor; None stays None.

    Raises:
        GraphQLError: BAD_USER_INPUT, it is malformed.
    """
    if cursor is None:
        return None
    *keys, pk = cursor.split("_")
    numbers = [int(key) for key in keys if re.fullmatch(r"-?\d{1,16}", key, re.ASCII) and abs(int(key)) <= LARGEST_KEY]
    if not len(numbers) == len(keys) == columns - 1:
        bad_input(f"{argument}: {shown(cursor)} is not a cursor of this order.")
    return [*numbers, from_cursor(pk, argument) or 0]


def page_size(first: int | None, largest: int = 100, argument: str = "first") -> int:
    """The size of a page: `first`, or 50 when it is not given.

    Raises:
        GraphQLError: BAD_USER_INPUT, it is out of range.
    """
    if first is None:
        return min(50, largest)
    if not 0 <= first <= largest:
        bad_input(f"{argument}: must be from 0 to {largest}.")
    return first


def in_utc(moment: datetime, argument: str) -> datetime:
    """A time of a client; one without a zone is in UTC.

    Raises:
        GraphQLError: BAD_USER_INPUT, it cannot be expressed in UTC.
    """
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (OverflowError, ValueError):
        bad_input(f"{argument}: {moment.isoformat()} lies outside of the calendar.")


def shown(value: str) -> str:
    """A value of a client in a message: quoted, and cut."""
    return repr(value if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]}…")


def bad_input(message: str) -> NoReturn:
    raise GraphQLError(message, extensions={"code": "BAD_USER_INPUT"})


def cursor_expired(error: CursorExpiredError) -> GraphQLError:
    """The error for a cursor after which events have been deleted."""
    return GraphQLError(
        f"after: events after this cursor have been deleted; continue after {error.oldest}, or read eventCursor and "
        "the state again.",
        extensions={"code": "CURSOR_EXPIRED", "oldest": to_cursor(error.oldest)},
    )
