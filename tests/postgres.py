"""A PostgreSQL cluster of our own, from the machine's packages."""

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

PGBOUNCER = Path("/usr/sbin/pgbouncer")
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def missing() -> str | None:
    """Why there can be none, in a sentence."""
    return None if BINARIES else "PostgreSQL is not installed (Debian: apt-get install postgresql)."


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _as_owner(*command: str) -> list[str]:
    """The server refuses to be root."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else list(command)


class Postgres:
    """One cluster; each test takes a database of its own."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cm-postgres-", dir="/tmp"))
        self._port = free_port()
        self._databases = 0

    def start(self) -> "Postgres":
        data = self._folder / "data"
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        self._run("initdb", "--pgdata", str(data), "--auth=trust", "--username=cm", "--no-sync", "--encoding=UTF8")
        # The machine does not crash in a test, only processes do.
        options = ("fsync=off", "full_page_writes=off", "listen_addresses=127.0.0.1", f"port={self._port}")
        self._options = " ".join(f"-c {option}" for option in (*options, f"unix_socket_directories={self._folder}"))
        self.resume()
        return self

    def resume(self) -> None:
        data, log = str(self._folder / "data"), str(self._folder / "log")
        self._run("pg_ctl", "--pgdata", data, "--wait", "--log", log, "-o", self._options, "start")

    def crash(self) -> None:
        """Stop as if the power had failed."""
        self._run("pg_ctl", "--pgdata", str(self._folder / "data"), "--mode=immediate", "stop")

    def database(self, encoding: str = "UTF8") -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        place = ["--host", "127.0.0.1", "--port", str(self._port), "--username", "cm"]
        self._run("createdb", *place, f"--encoding={encoding}", "--template=template0", "--locale=C", name)
        return f"postgresql://cm@127.0.0.1:{self._port}/{name}"

    def stop(self) -> None:
        # A test that failed may have left it crashed.
        with suppress(subprocess.CalledProcessError):
            self.crash()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            _as_owner(str(BINARIES[-1] / program), *arguments),
            cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip


class PgBouncer:
    """A pool in transaction mode before a database: no connection of a client's is one of the server's for long."""

    def __init__(self, url: str, connections: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cm-pgbouncer-", dir="/tmp"))
        port = free_port()
        server = urlsplit(url)
        (self._folder / "pgbouncer.ini").write_text(
            f"""[databases]
            * = host={server.hostname} port={server.port} user=cm
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = {connections}
            """.replace("            ", "")
        )
        self.url = server._replace(netloc=f"cm@127.0.0.1:{port}").geturl()
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
            self._folder.chmod(0o755)

    def __enter__(self) -> "PgBouncer":
        self._process = subprocess.Popen(
            _as_owner(str(PGBOUNCER), str(self._folder / "pgbouncer.ini")), cwd="/", stderr=subprocess.DEVNULL
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)
