"""Reading what the fleet view is made of: the change feed, the usage of hosts, and their own rows."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from container_manager.database import connection
from container_manager.domain import capabilities, lifecycle
from container_manager.routing.types import HostState
from container_manager.store import bulk

# Literals, not parameters: SQLite uses a partial index only if it can prove that the query's condition implies it.
ACTIVE_SQL = "status IN ({})".format(", ".join(f"'{status}'" for status in sorted(lifecycle.ACTIVE)))

_COLUMNS = "id, txid, host_id, jobs, memory, cpu, host_changed"
_OWN = "COALESCE(txid = txid_current_if_assigned(), FALSE)"

# Each row is (snapshot, change..., own): first the snapshot, then the changes, then the usage of each host.
_NOW = {
    "postgresql": "SELECT txid_current_snapshot()::text, txid_current_if_assigned(), "
    "NULL, NULL, NULL, NULL, NULL, NULL, FALSE",
    "sqlite": "SELECT '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, FALSE",
}
_SINCE = {
    "postgresql": f"SELECT NULL, {_COLUMNS}, {_OWN} FROM container_manager_fleetchange "  # noqa: S608
    "WHERE txid >= %s AND (id = %s OR txid = %s OR NOT txid_visible_in_snapshot(txid, %s::txid_snapshot)) "
    # Those of a transaction of another cluster, from which the database was restored, are not later than the view.
    "AND txid <= GREATEST(txid_snapshot_xmax(txid_current_snapshot()), txid_current_if_assigned())",
    "sqlite": f"SELECT NULL, {_COLUMNS}, FALSE FROM container_manager_fleetchange WHERE id >= %s",  # noqa: S608
}
_NEWEST = {
    "postgresql": f"SELECT NULL, {_COLUMNS}, {_OWN} FROM container_manager_fleetchange "  # noqa: S608
    "WHERE id = (SELECT MAX(id) FROM container_manager_fleetchange) OR txid = txid_current_if_assigned()",
    "sqlite": f"SELECT NULL, {_COLUMNS}, FALSE FROM container_manager_fleetchange "  # noqa: S608
    "WHERE id = (SELECT MAX(id) FROM container_manager_fleetchange)",
}
_USAGE = f"""
    SELECT NULL, NULL, NULL, host_id, COUNT(*), COALESCE(SUM(memory_limit), 0), COALESCE(SUM(cpu_limit), 0), NULL, FALSE
    FROM container_manager_containerjob WHERE {ACTIVE_SQL} AND host_id IS NOT NULL GROUP BY host_id"""  # noqa: S608

_HOSTS = """
    SELECT h.id, h.name, h.executor_type, h.region, h.labels, h.routing_weight, h.only_preferred,
           h.max_concurrent_jobs, COALESCE(h.max_memory_mb, h.reported_memory_mb),
           COALESCE(h.max_cpu_cores, h.reported_cpu_cores), h.is_active, h.is_draining, h.health_status, h.grants,
           (SELECT MAX(r.priority) FROM container_manager_containerjob r
            WHERE r.reserved_host_id = h.id AND r.status = 'pending'), h.ejected_until, h.cooldown_until
    FROM container_manager_executorhost h {} ORDER BY h.id
"""


class Change(NamedTuple):
    """A row of the feed; see models.FleetChange."""

    id: int
    txid: int
    host_id: int
    jobs: int
    memory: int
    cpu: int
    host_changed: bool


class Read(NamedTuple):
    """What one statement has read: a snapshot, committed changes, our own, and usage if it was asked for.

    `unseen`: our own transaction. The snapshot may tell of it as of one that has ended, but does not include it.
    """

    snapshot: str
    unseen: int | None
    changes: list[Change]
    own: list[Change]
    usage: dict[int, tuple[int, int, int]]


States = dict[int, HostState]
Until = dict[int, tuple[datetime | None, datetime | None]]
"""When the ejection and the cooldown of a host end, by id."""


def since(seen: Change, snapshot: str, unseen: int | None) -> bulk.Query:
    """The query for this change, and those that a view does not include which stands at the snapshot."""
    sql = _SINCE[connection.vendor]
    if connection.vendor != "postgresql":
        return sql, [seen.id]
    oldest_running = int(snapshot.partition(":")[0])
    return sql, [min(oldest_running, seen.txid), seen.id, unseen, snapshot]


def newest() -> bulk.Query:
    """The query for the last change, and all of this transaction."""
    return _NEWEST[connection.vendor], []


def query(changes: bulk.Query, *, usage: bool = False) -> bulk.Query:
    """The statement whose rows are for `parsed`; with the usage of all hosts, if it is asked for."""
    sql, parameters = changes
    return " UNION ALL ".join([_NOW[connection.vendor], sql, *([_USAGE] if usage else [])]), parameters


def parsed(rows: Iterable[Sequence[Any]]) -> Read:
    """What the rows of `query` say."""
    read = Read("", None, [], [], {})
    for snapshot, *change, own in rows:
        if snapshot is not None:
            read = read._replace(snapshot=snapshot, unseen=change[0])
        elif change[0] is None:
            read.usage[change[2]] = (int(change[3]), int(change[4]), int(change[5]))
        else:
            (read.own if own else read.changes).append(Change(*change))
    return read


def read_hosts(ids: Iterable[int] | None) -> tuple[States, Until]:
    """Hosts without their usage, and when their ejection and cooldown end."""
    among = None if ids is None else bulk.id_in("h.id", ids)
    with connection.cursor() as cursor:
        cursor.execute(_HOSTS.format(f"WHERE {among.sql}" if among else ""), among.params if among else [])
        rows = cursor.fetchall()
    # Many hosts share the same labels and grants, so each text is decoded once.
    labels = {text: orjson.loads(text) for text in {row[4] for row in rows}}
    grants = {text: capabilities.current(orjson.loads(text)) for text in {row[13] for row in rows}}
    states, until = {}, {}
    for row in rows:
        own = (*row[:4], labels[row[4]], row[5], bool(row[6]), *row[7:10], bool(row[10]), bool(row[11]), row[12])
        states[row[0]] = HostState._make((*own, 0, 0, 0, False, False, row[14], grants[row[13]]))
        if row[15] is not None or row[16] is not None:
            until[row[0]] = (_moment(row[15]), _moment(row[16]))
    return states, until


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    # SQLite has no type for times; Django stores them in UTC.
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
