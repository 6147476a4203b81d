"""The transaction of one decision, repeated by pgbench: the same snapshot query, the same locks, the same rows."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

SECONDS = 3
COPIED = {"containerjob": 1, "routingevaluation": 1, "routingdecision": 1, "routingevent": 2}
"""How many rows one decision has written to each table; they are the newest."""


def find() -> str | None:
    """The path of pgbench; None when it is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
    return str(installed[-1]) if installed else shutil.which("pgbench")


def script() -> str:
    """What the last decision did, as SQL that can be repeated."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from container_manager.store.fleet import states
    from container_manager.store.transaction import EVENT_LOCK, ROUTING_LOCK

    with CaptureQueriesContext(connection) as captured:
        states()
    snapshot = " ".join(captured[0]["sql"].split())
    inserts = []
    with connection.cursor() as cursor:
        for name, count in COPIED.items():
            table = f"container_manager_{name}"
            cursor.execute(f"SELECT MAX(id) FROM {table}")
            newest = cursor.fetchone()[0]
            inserts.append(copy_statement(cursor, table, f"id > {newest - count} AND id <= {newest}"))
    steps = [
        "BEGIN",
        f"SELECT pg_advisory_xact_lock({ROUTING_LOCK})",
        snapshot,
        *inserts[:-1],
        f"SELECT pg_advisory_xact_lock({EVENT_LOCK})",
        inserts[-1],
        "END",
    ]
    return ";\n".join(steps) + ";\n"


def copy_statement(cursor: Any, table: str, where: str) -> str:
    """SQL that inserts these rows of a table once more, under new ids."""
    cursor.execute(f"SELECT * FROM {table} LIMIT 0")
    # Quoted, because a column may be called like a keyword: `user` is one.
    columns = ", ".join(f'"{column[0]}"' for column in cursor.description if column[0] != "id")
    return f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} WHERE {where}"


def latency_ms(url: str) -> float | None:
    """The average time of that transaction with one client; None without pgbench."""
    program = find()
    if program is None:
        return None
    return float(run(program, script(), url, 1, r"latency average = ([\d.]+) ms"))


def rate(url: str, setup: str, transaction: str, teardown: str, clients: int = 16) -> float | None:
    """Transactions per second of `clients` clients; None without pgbench."""
    from django.db import connection

    program = find()
    if program is None:
        return None
    with connection.cursor() as cursor:
        cursor.execute(setup)
    try:
        return float(run(program, transaction, url, clients, r"tps = ([\d.]+)"))
    finally:
        with connection.cursor() as cursor:
            cursor.execute(teardown)


def run(program: str, transaction: str, url: str, clients: int, wanted: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(transaction)
        file.flush()
        arguments = ["--no-vacuum", f"--client={clients}", f"--time={SECONDS}", f"--file={file.name}", url]
        ran = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    found = re.search(wanted, ran.stdout)
    if ran.returncode or found is None:
        raise SystemExit(f"pgbench has failed: {ran.stderr or ran.stdout}")
    return found[1]
