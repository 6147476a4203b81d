"""The clients that docs/clients.md shows, from Node, against a service that is killed and stopped under them."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.client import CREATE_HOST, SUBMIT
from tests.eventually import eventually_sync
from tests.pages import blocks
from tests.postgres import free_port
from tests.processes import ROOT, UNMEASURED, Served

CLIENTS = ROOT / "docs" / "clients"
AUDITS = Path(__file__).parent / "audits"
HOST = {"name": "sim", "executorType": "SIMULATED", "config": {"accept": "any", "launch_ms": 0, "run_ms": 5}}
PER_JOB = 5
JOBS = 6
EVENTS = "query($after: String!) { routingEvents(after: $after, first: 100) { edges { node { cursor } } } }"


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts, with what they import."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("Node.js is not installed (Debian: apt-get install nodejs npm).")
    folder = tmp_path_factory.mktemp("clients")
    shutil.copytree(CLIENTS, folder, dirs_exist_ok=True)
    return _installed(folder)


def _installed(folder: Path) -> Path:
    npm = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(npm, cwd=folder, check=True, timeout=120)
    return folder


def submit(served: Served, token: str) -> None:
    for _ in range(JOBS):
        served.query(token, SUBMIT, input={"image": "x", "command": ["true"]})


@pytest.mark.parametrize("client", ["graphql-ws", "urql", "apollo", "graphql-sse"])
def test_a_client_continues_after_its_last_cursor_through_kills_and_restarts(
    scripts: Path, client: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    port, count = str(free_port()), 3 * JOBS * PER_JOB
    home = tmp_path / "home"
    with Served(home, "serve", "--port", port, **UNMEASURED) as first:
        token = first.token
        first.query(token, CREATE_HOST, input=HOST)
        after = first.query(token, "{ eventCursor }")
        out = tmp_path / "out"
        err = tmp_path / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            node = subprocess.Popen(
                ["node", f"{client}.mjs", first.url, token, str(count), str(after)],
                cwd=scripts, stdout=stdout, stderr=stderr,
            )  # fmt: skip
        request.addfinalizer(lambda: (node.kill(), node.wait(10)))

        def has_seen(number: int) -> bool:
            assert node.poll() is None or number == count, err.read_text()
            return len(out.read_text().split()) >= number

        submit(first, token)
        eventually_sync(lambda: has_seen(JOBS * PER_JOB), 30)
        first.kill()
    with Served(home, "serve", "--port", port, **UNMEASURED) as second:
        submit(second, token)
        eventually_sync(lambda: has_seen(2 * JOBS * PER_JOB), 30)
        assert second.terminate() == 0
    with Served(home, "serve", "--port", port, **UNMEASURED) as third:
        submit(third, token)
        eventually_sync(lambda: has_seen(count), 30)
        assert node.wait(10) == 0
        told = [edge["node"]["cursor"] for edge in third.query(token, EVENTS, after=after)["edges"]]
    assert out.read_text().split() == told


def test_what_the_page_about_clients_tells_to_type_works(scripts: Path, tmp_path: Path) -> None:
    # What they install is installed already.
    commands = blocks("clients.md", "sh")[0].replace("npm install", "true")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/clients").symlink_to(scripts)
    with Served(tmp_path / "home", "serve", "--port", "0", **UNMEASURED) as served:
        served.query(served.token, CREATE_HOST, input=HOST)
        with (tmp_path / "out").open("wb") as out:
            node = subprocess.Popen(
                ["bash", "-euc", commands], cwd=tmp_path, env={**os.environ, "URL": served.url, "TOKEN": served.token},
                stdout=out,
            )  # fmt: skip

        def has_ended() -> bool:
            submit(served, served.token)
            return node.poll() is not None

        try:
            eventually_sync(has_ended, 60)
        finally:
            node.kill()
    assert node.wait(10) == 0
    assert re.fullmatch(r"(?s).*?(\d+\n){10}", (tmp_path / "out").read_text())


def test_a_client_without_a_valid_token_ends_with_an_error(scripts: Path, tmp_path: Path) -> None:
    with Served(tmp_path / "home", "serve", "--port", "0", **UNMEASURED) as served:
        for client in ("graphql-ws", "urql", "apollo", "graphql-sse"):
            done = subprocess.run(
                ["node", f"{client}.mjs", served.url, "cm_nobody", "1", "0"],
                cwd=scripts, capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            assert done.returncode == 1, client
            assert done.stdout == ""


def test_the_audits_of_graphql_over_http_pass(tmp_path: Path) -> None:
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("Node.js is not installed (Debian: apt-get install nodejs npm).")
    folder = _installed(shutil.copytree(AUDITS, tmp_path / "audits"))
    with Served(tmp_path / "home") as served:
        done = subprocess.run(
            ["node", "audit.mjs", served.url, served.token],
            cwd=folder, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    results = json.loads(done.stdout)
    assert len(results) >= 61
    assert [result for result in results if result["status"] != "ok"] == []


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tools by which frontends read the schema."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("Node.js is not installed (Debian: apt-get install nodejs npm).")
    folder = shutil.copytree(Path(__file__).parent / "schema_tools", tmp_path_factory.mktemp("tools") / "tools")
    for name in ("caches.mjs", "react.jsx"):
        shutil.copy(CLIENTS / name, folder / name.replace(".", "-of-docs."))
    shutil.copy(ROOT / "graphql_api" / "schema.graphql", folder / "relay")
    return _installed(folder)


def run(folder: Path, *command: str) -> str:
    """Run a program of the tools, which must succeed; returns what it prints."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_typescript_is_generated_and_checked_strictly(tools: Path) -> None:
    run(tools, "node", "codegen.mjs", str(ROOT / "graphql_api" / "schema.graphql"))
    run(tools, "npx", "tsc", "--project", ".")


def test_relay_compiles_its_documents(tools: Path) -> None:
    said = run(tools / "relay", "npx", "relay-compiler")
    assert "0 updated" not in said
    assert len(list((tools / "relay").rglob("pages*.graphql.ts"))) >= 9


def test_normalising_caches_keep_one_object_as_one(tools: Path, tmp_path: Path) -> None:
    with Served(tmp_path / "home", "serve", "--port", "0", **UNMEASURED) as served:
        served.query(served.token, CREATE_HOST, input=HOST)
        served.query(served.token, SUBMIT, input={"image": "x", "labels": {"team": "ml"}})
        run(tools, "node", "caches.mjs", served.url, served.token)


def test_react_components_show_what_happens(tools: Path, tmp_path: Path) -> None:
    with Served(tmp_path / "home", "serve", "--port", "0", **UNMEASURED) as served:
        served.query(served.token, CREATE_HOST, input=HOST)
        served.query(served.token, SUBMIT, input={"image": "x", "name": "earlier"})
        run(tools, "node", "react.mjs", served.url, served.token)
