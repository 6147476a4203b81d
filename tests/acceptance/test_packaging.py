"""What is released, installed into empty environments."""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.eventually import eventually_sync
from tests.processes import ROOT, Served


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of the service and of the client."""
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run([ROOT / "scripts/build", folder], check=True, capture_output=True, timeout=120)
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


def newest_python() -> str:
    """The newest release of Python that pyenv has, or else the one that runs the tests, which try all else with it."""
    every = Path.home().glob(".pyenv/versions/3.*/bin/python3")
    found = [path for path in every if re.fullmatch(r"3\.1[1-4]\.\d+", path.parents[1].name)]
    return str(max(found, key=_version, default=sys.executable))


def _version(python: Path) -> tuple[int, ...]:
    return tuple(map(int, python.parents[1].name.split(".")))


def installed(folder: Path, *what: object, python: str = sys.executable) -> Path:
    """A new environment with these packages; its programs."""
    subprocess.run([python, "-m", "venv", folder], check=True, timeout=60)
    install = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *map(str, what)]
    subprocess.run(install, check=True, timeout=300, capture_output=True)
    return folder / "bin"


def outside(home: Path, **variables: str) -> dict[str, str]:
    """The environment of a user who has no sources."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "CONTAINER_MANAGER_HOME": str(home), **variables}


@contextmanager
def running(command: list[object], home: Path, pattern: str) -> Iterator[re.Match[str]]:
    out = home / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(command, env=outside(home), cwd=home, stdout=file, stderr=file)
    try:
        yield eventually_sync(lambda: re.search(pattern, out.read_text()), 60, "it is ready")
    finally:
        process.terminate()
        process.wait(15)


def test_a_new_user_sees_jobs_run_with_nothing_but_the_wheel(wheels: dict[str, Path], tmp_path: Path) -> None:
    programs = installed(tmp_path / "env", wheels["container_manager"], python=newest_python())
    with running(
        [programs / "container-manager", "demo", "--port", "0"], tmp_path, r"ready (\S+) token=(\S+)\n"
    ) as ready:
        url, token = ready.groups()
        assert 'src="' in httpx.get(url, headers={"Accept": "text/html"}).text
        assert httpx.get(f"{url}assets/app.js").status_code == 200
        place = outside(tmp_path, CONTAINER_MANAGER_URL=url, CONTAINER_MANAGER_TOKEN=token)
        follow = ["submit", "--image", "any", "--prefer", "simulated", "--follow", "--", "echo hello; exit 4"]
        done = subprocess.run(
            [programs / "container-manager", *follow],
            env=place,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (4, "hello\n"), done.stderr

        def ask(query: str) -> dict:
            headers = {"Authorization": f"Bearer {token}"}
            return httpx.post(f"{url}graphql", json={"query": query}, headers=headers).json()

        made = ask(
            'mutation { createHost(input: {name: "run", executorType: CLOUDRUN, config: {project: "p", region: "r"}})'
            " { ... on ExecutorHost { health { error } } ... on UserError { message } } }"
        )
        assert "install container-manager[cloudrun]" in made["data"]["createHost"]["health"]["error"]
    # The application for any ASGI server, by a name that no project has.
    serve = [programs / "uvicorn", "container_manager.asgi:application", "--port", "0"]
    with running(serve, tmp_path, r"running on (http://\S+)") as ready:
        assert httpx.get(f"{ready[1]}/livez").text == "ok\n"


def test_the_wheel_takes_no_name_that_a_project_has(wheels: dict[str, Path]) -> None:
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheels["container_manager"]).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"container_manager", "graphql_api"}


def test_the_client_alone_is_light(wheels: dict[str, Path], tmp_path: Path) -> None:
    programs = installed(tmp_path / "env", wheels["container_manager_client"])
    listed = subprocess.run([programs / "pip", "list"], capture_output=True, text=True, check=True).stdout.lower()
    assert "django" not in listed
    script = """
import os
from container_manager.client import Client, Unauthenticated

with Client(os.environ["URL"], os.environ["TOKEN"]) as client:
    print(client.submit("any", ["exit 0"], preferred_executor="simulated").result().status)
try:
    Client(os.environ["URL"], "wrong").host("x")
except Unauthenticated as error:
    print(error)
"""
    with Served(tmp_path / "home", "demo", "--port", "0") as served:
        variables = outside(tmp_path, URL=served.url, TOKEN=served.token)
        done = subprocess.run(
            [programs / "python", "-c", script],
            env=variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    status, refusal = done.stdout.splitlines()
    assert (status, "The token is unknown" in refusal) == ("SUCCEEDED", True)
