"""The transaction of one decision, run by pgbench: the same snapshot query, the same locks, the same rows."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

SECONDS = 3
COPIED = {"containerjob": 1, "routingevaluation": 1, "routingdecision": 1, "routingevent": 2}
"""How many of the newest rows of each table one decision has written."""


def find() -> str | None:
    """Where pgbench is, if it is."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
    return str(installed[-1]) if installed else shutil.which("pgbench")


def script() -> str:
    """What the last decision did, as SQL that can be repeated."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from container_manager.store import hosts
    from container_manager.store.transaction import EVENT_LOCK, ROUTING_LOCK

    with CaptureQueriesContext(connection) as captured:
        hosts.snapshot()
    snapshot = " ".join(captured[0]["sql"].split())
    inserts = []
    with connection.cursor() as cursor:
        for name, count in COPIED.items():
            table = f"container_manager_{name}"
            cursor.execute(f"SELECT MAX(id) FROM {table}")
            newest = cursor.fetchone()[0]
            cursor.execute(f"SELECT * FROM {table} LIMIT 0")
            columns = ", ".join(column[0] for column in cursor.description if column[0] != "id")
            where = f"id > {newest - count} AND id <= {newest}"
            inserts.append(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} WHERE {where}")
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


def latency_ms(url: str) -> float | None:
    """The average time of that transaction, of one client; None without pgbench."""
    program = find()
    if program is None:
        return None
    return float(_run(program, script(), url, 1, r"latency average = ([\d.]+) ms"))


def rate(url: str, setup: str, transaction: str, teardown: str, clients: int = 16) -> float | None:
    """Transactions a second of so many clients; None without pgbench."""
    from django.db import connection

    program = find()
    if program is None:
        return None
    with connection.cursor() as cursor:
        cursor.execute(setup)
    try:
        return float(_run(program, transaction, url, clients, r"tps = ([\d.]+)"))
    finally:
        with connection.cursor() as cursor:
            cursor.execute(teardown)


def _run(program: str, transaction: str, url: str, clients: int, wanted: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(transaction)
        file.flush()
        arguments = ["--no-vacuum", f"--client={clients}", f"--time={SECONDS}", f"--file={file.name}", url]
        ran = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    found = re.search(wanted, ran.stdout)
    assert found is not None, ran.stdout
    return found[1]
