"""A PostgreSQL cluster of our own, from the machine's packages."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def missing() -> str | None:
    """Why there can be none, in a sentence."""
    return None if BINARIES else "PostgreSQL is not installed (Debian: apt-get install postgresql)."


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """One cluster; each test takes a database of its own."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cm-postgres-", dir="/tmp"))
        self._port = _free_port()
        self._databases = 0

    def start(self) -> "Postgres":
        data = self._folder / "data"
        if os.geteuid() == 0:
            # The server refuses to be root.
            shutil.chown(self._folder, "postgres", "postgres")
        self._run("initdb", "--pgdata", str(data), "--auth=trust", "--username=cm", "--no-sync", "--encoding=UTF8")
        options = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories={self._folder}"
        self._run("pg_ctl", "--pgdata", str(data), "--wait", "--log", str(self._folder / "log"), "-o", options, "start")
        return self

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        self._run("createdb", "--host", "127.0.0.1", "--port", str(self._port), "--username", "cm", name)
        return f"postgresql://cm@127.0.0.1:{self._port}/{name}"

    def stop(self) -> None:
        self._run("pg_ctl", "--pgdata", str(self._folder / "data"), "--mode=immediate", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        as_owner = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run(
            [*as_owner, str(BINARIES[-1] / program), *arguments],
            cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
