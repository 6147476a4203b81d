"""The database's host is gone without a word: no packet of any connection arrives any more, but new connections do.

Run in a network namespace of its own. Prints the seconds after which the service does its work again.
"""

import subprocess
import sys
import time
from pathlib import Path

import httpx
import psycopg

from tests.client import CREATE_HOST
from tests.eventually import eventually_sync
from tests.postgres import Postgres
from tests.processes import UNMEASURED, Served

CONNECTIONS = "SELECT client_port FROM pg_stat_activity WHERE client_port > 0 AND pid <> pg_backend_pid()"


def main(folder: Path) -> None:
    """Lose the packets, and wait until jobs are accepted and the process is ready again."""
    _run("ip", "link", "set", "lo", "up")
    cluster = Postgres().start()
    url = cluster.database()
    variables = {"CONTAINER_MANAGER_DATABASE_URL": url, "CONTAINER_MANAGER_SECRET_KEY": "only-for-tests-" * 3}
    try:
        with Served(folder, "serve", "--port", "0", **variables, **UNMEASURED) as served:
            with psycopg.connect(url) as connection:
                ports = [str(row[0]) for row in connection.execute(CONNECTIONS)]
            assert len(ports) > 2, ports
            for direction in ("--dport", "--sport"):
                for port in ports:
                    _run("iptables", "--append", "INPUT", "--protocol", "tcp", direction, port, "--jump", "DROP")
            began = time.monotonic()
            eventually_sync(lambda: _writes(served), 120)
            eventually_sync(lambda: httpx.get(f"{served.url}/readyz", timeout=60).status_code == 200, 120)
            sys.stdout.write(f"{time.monotonic() - began}\n")
    finally:
        cluster.stop()


def _writes(served: Served) -> bool:
    host = {"name": "sim", "executorType": "SIMULATED"}
    request = {"query": CREATE_HOST, "variables": {"input": host}}
    headers = {"Authorization": f"Bearer {served.token}"}
    return "errors" not in httpx.post(f"{served.url}/graphql", json=request, headers=headers, timeout=90).json()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
