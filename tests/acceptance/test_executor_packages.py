"""Executors that packages bring: the example of examples/executor, as if it were installed."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.client import CREATE_HOST, JOB, SUBMIT
from tests.eventually import eventually_sync
from tests.pages import blocks
from tests.processes import ROOT, Served, command, environment

HOST = {"name": "here", "executorType": "PROCESS", "config": {"folder": "/tmp"}}


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment in which the package is found."""
    folder = tmp_path / "packages"
    about = folder / "process_executor-1.dist-info"
    about.mkdir(parents=True)
    shutil.copy(ROOT / "examples/executor/process_executor.py", folder)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: process-executor\nVersion: 1\n")
    (group,) = tomllib.loads(blocks("executors.md", "toml")[0])["project"]["entry-points"].items()
    shown = "".join(f"{name} = {target}\n" for name, target in group[1].items())
    (about / "entry_points.txt").write_text(f"[{group[0]}]\n{shown}broken = no_such_module:X\n")
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


def test_a_package_brings_an_executor(installed: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Served(home, **installed) as served:
        token = served.token
        host = served.query(token, CREATE_HOST, input=HOST)
        assert host["health"]["status"] == "HEALTHY", host
        job = served.query(
            token, SUBMIT, input={"image": "any", "command": ["sh", "-c", "echo here; exit 3"], "user": "me"}
        )
        assert job["host"]["name"] == "here"
        ended = eventually_sync(
            lambda: (found := served.query(token, JOB, id=job["id"]))["status"] == "FAILED" and found, 20
        )
        assert ended["exitCode"] == 3
        assert [edge["node"]["text"] for edge in ended["logs"]["edges"]] == ["here"]
        wrong = served.query(token, CREATE_HOST, input={**HOST, "name": "other", "config": {"folders": "/"}})
        assert "config.folders: is not a setting of this executor type" in json.dumps(wrong)
        broken = served.query(token, CREATE_HOST, input={"name": "broken", "executorType": "BROKEN"})
        assert "no_such_module" in json.dumps(broken)
        served.terminate()
    refused = command(home, "serve", "--port", "0")
    assert refused.returncode == 1
    assert "The host here is of the type process, of which no executor is installed" in refused.stderr


def test_a_package_runs_the_tests_of_executors(installed: dict[str, str], tmp_path: Path) -> None:
    included, contract = blocks("executors.md", "python")
    assert '--"examples/executor/process_executor.py"' in included
    (tmp_path / "test_process.py").write_text(contract)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "test_process.py"],
        cwd=tmp_path, env=environment(tmp_path / "home", **installed, DJANGO_SETTINGS_MODULE="container_manager.settings"),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
