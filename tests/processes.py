"""The command line as processes of their own."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.eventually import eventually_sync

ROOT = Path(__file__).parents[1]


UNMEASURED = {"COVERAGE_PROCESS_CONFIG": ""}
"""For processes whose code is covered elsewhere: measuring coverage would cost more than their work."""

MEASURE = "MEASURE_PROCESSES"
"""Set by the tests whose processes run code that no other test covers."""


def environment(home: Path, **variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONTAINER_MANAGER", "DJANGO"))}
    mine = {"CONTAINER_MANAGER_HOME": str(home), "CONTAINER_MANAGER_NODE": "test-node", "PYTHONPATH": str(ROOT)}
    return {**kept, **mine, **({} if MEASURE in os.environ else UNMEASURED), **variables}


def command(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "container_manager", *arguments],
        env=environment(home, **variables), cwd=home, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


class Served:
    """A server process, ready to answer."""

    def __init__(self, home: Path, *arguments: str, **variables: str) -> None:
        home.mkdir(exist_ok=True)
        self.stderr = home / "stderr"
        self._out = home / "stdout"
        with self._out.open("wb") as out, self.stderr.open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "container_manager", *(arguments or ("serve", "--port", "0"))],
                env=environment(home, **variables), cwd=home, stdout=out, stderr=err,
            )  # fmt: skip
        line = eventually_sync(self._ready, 30, f"not ready: {self.stderr.read_text()}")
        self.url, self.token = re.fullmatch(r"ready (http://\S+)/(?: token=(\S+))?\n", line).groups()

    def _ready(self) -> str | None:
        assert self.process.poll() is None, self.stderr.read_text()
        line = self._out.read_text()
        return line if line.endswith("\n") else None

    def query(self, token: str, query: str, **variables: object) -> object:
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.post(
            f"{self.url}/graphql",
            json={"query": query, "variables": variables},
            headers=headers,
            verify=False,
            timeout=30,
        ).json()
        assert "errors" not in answer, answer
        (value,) = answer["data"].values()
        return value

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def terminate(self, timeout: float = 10) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
