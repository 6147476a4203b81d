"""Committed events as they come, by PostgreSQL's LISTEN."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from container_manager.database import connection
from container_manager.environment import POSTGRESQL_OPTIONS
from container_manager.store import threads
from container_manager.store.events import NEXT_EVENTS, Event
from container_manager.store.transaction import EVENT_CHANNEL

NOTIFIED_WITHIN_SECONDS = 1.0
APPLICATION_NAME = "container-manager events"
"""How PostgreSQL names the listening connection."""

_CONNINFO = {"host": "HOST", "port": "PORT", "dbname": "NAME", "user": "USER", "password": "PASSWORD"}
"""libpq's names of Django's database settings."""


def default_url() -> str:
    """The connection string of the configured database; "" for SQLite, which has no LISTEN."""
    if connection.vendor != "postgresql":
        return ""
    # Imported here because psycopg is an extra.
    from psycopg.conninfo import make_conninfo  # noqa: PLC0415

    known = connection.settings_dict
    place: dict[str, Any] = {name: known[key] or None for name, key in _CONNINFO.items()}
    return make_conninfo(**place, **known["OPTIONS"])


async def pages(url: str, cursor: int, limit: int, patience: float) -> AsyncGenerator[list[Event], None]:
    """Events after a cursor, as any process commits them, for as long as the connection lasts.

    It uses a connection of its own on the event loop, so that a notification is followed by one read without a change
    of thread. Pages may be empty. The first one comes at once, then at least one every `patience` seconds.

    Raises:
        psycopg.Error, TimeoutError: the connection cannot be made, or is lost.
    """
    import psycopg  # noqa: PLC0415 - an extra

    options: dict[str, Any] = {
        **POSTGRESQL_OPTIONS, "application_name": APPLICATION_NAME, "client_encoding": "UTF8",
    }  # fmt: skip
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, **options)
    async with connection:
        await connection.execute("SET TIME ZONE 'UTC'")
        await connection.execute(f"LISTEN {EVENT_CHANNEL}")
        await _check_notifications(connection)
        while True:
            async with asyncio.timeout(patience):
                rows = await (await connection.execute(NEXT_EVENTS, [cursor, limit])).fetchall()
            events = [Event(*row) for row in rows]
            cursor = events[-1].id if events else cursor
            yield events
            if len(events) < limit:
                async for _ in connection.notifies(timeout=patience, stop_after=1):
                    pass


async def _check_notifications(connection: Any) -> None:
    """Make sure that notifications arrive; through a pool in transaction mode they do not."""
    # Sent by another connection, because PostgreSQL always delivers a connection's own notifications to it.
    await threads.read(_notify)
    if not [received async for received in connection.notifies(timeout=NOTIFIED_WITHIN_SECONDS, stop_after=1)]:
        raise TimeoutError("no notification arrives; CONTAINER_MANAGER_LISTEN_URL must be a direct connection")


def _notify() -> None:
    with connection.cursor() as sql:
        sql.execute("SELECT pg_notify(%s, '')", [EVENT_CHANNEL])
