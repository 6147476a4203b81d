"""The documentation: it is built without a warning, is complete, and what it tells to type works."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from container_manager.cli.main import main
from container_manager.domain.kinds import EventKind
from container_manager.environment import Environment
from tests.client import CREATE_HOST
from tests.processes import ROOT, Served, environment

DOCS = ROOT / "docs"
SIMULATED = {"name": "sim", "executorType": "SIMULATED", "config": {"accept": "any", "launch_ms": 0, "run_ms": 10}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run([ROOT / "scripts/docs", folder], capture_output=True, text=True, timeout=200, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def test_everything_is_in_the_reference(site: Path) -> None:
    page = {path.parent.name: path.read_text() for path in (site / "reference").glob("*/index.html")}
    assert all(f"CONTAINER_MANAGER_{name.upper()}<" in page["settings"] for name in Environment.model_fields)
    assert all(f">{kind.name}<" in page["events"] for kind in EventKind)
    assert all(f"container-manager {name}<" in page["cli"] for name in main.commands)
    assert "container-manager hosts drain" in page["cli"]
    assert "AsyncClient" in page["python"]
    assert "submitJob(" in page["graphql"]
    with Served(site.parent / "home") as served:
        text = subprocess.run(
            ["curl", "-s", "-H", f"Authorization: Bearer {served.token}", f"{served.url}/metrics"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    measured = set(re.findall(r"^# TYPE (container_manager_\w+)", text, re.M))
    assert len(measured) > 25
    assert {name for name in measured if f">{name.removesuffix('_total')}<" not in page["metrics"]} == set()
    index = (site / "llms.txt").read_text()
    assert all(f"]({path.stem}/)" in index for path in DOCS.glob("*.md"))
    told = json.dumps(json.loads((DOCS / "files/grafana.json").read_text()))
    rules = yaml.safe_load((DOCS / "files/alerts.yaml").read_text())["groups"][0]["rules"]
    used = set(re.findall(r"container_manager_\w+", told + " ".join(rule["expr"] for rule in rules)))
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in used}
    assert families <= {name.removesuffix("_total") for name in measured}


def test_links_between_files_lead_somewhere() -> None:
    for path in [*DOCS.glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "examples").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?:|#|reference/)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)


@pytest.fixture
def service(tmp_path: Path) -> dict[str, str]:
    """A new service; what its user has in the environment."""
    programs = Path(sys.executable).parent
    return environment(
        tmp_path, PATH=f"{programs}:{os.environ['PATH']}", XDG_CONFIG_HOME=str(tmp_path / "config"), HOST="sim"
    )


def typed(command: str | list[str], variables: dict[str, str], served: Served, cwd: Path) -> str:
    place = {"URL": served.url, "TOKEN": served.token}
    done = subprocess.run(
        command, env={**variables, **place}, cwd=cwd, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", ["tutorial.md", "terminal.md"])
def test_what_a_page_tells_to_type_works(page: str, service: dict[str, str], tmp_path: Path) -> None:
    with Served(tmp_path / "home") as served:
        if page == "terminal.md":
            served.query(served.token, CREATE_HOST, input=SIMULATED)
        # `plan` exits with 1 when some job would have to wait, as it may here.
        script = re.sub(r"(?m)^(container-manager plan .*)$", r"\1 || [ $? = 1 ]", "\n".join(blocks(page, "sh")))
        out = typed(["bash", "-euxc", script], service, served, tmp_path)
    if page == "tutorial.md":
        assert "hello\n" in out
        assert re.search(r"→ +attic", out)
        assert "It would run if" in out
        assert re.search(r"job +\d+\nname +big\nstatus +(ROUTED|LAUNCHING|RUNNING|SUCCEEDED)", out), out


def test_what_the_page_about_python_shows_works(service: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks("python.md", "python")))
    with Served(tmp_path / "home") as served:
        served.query(served.token, CREATE_HOST, input=SIMULATED)
        out = typed([sys.executable, str(script)], service, served, tmp_path)
    assert out.startswith("STDOUT hello\nSUCCEEDED 0 sim\n"), out
    assert "There is no host 'nowhere'." in out


def test_the_example_of_the_readme_works(service: dict[str, str], tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    with Served(tmp_path / "home") as served:
        served.query(served.token, CREATE_HOST, input=SIMULATED)
        example = example.replace("http://127.0.0.1:8000", served.url)
        out = typed([sys.executable, "-c", f"token = {served.token!r}\n{example}"], service, served, tmp_path)
        (commands,) = re.findall(r"## The first job\n\n```sh\n(.*?)^```$", text, re.M | re.S)
        commands = commands.replace("http://127.0.0.1:8000 --token cm_…", f"{served.url} --token {served.token}")
        # The simulator understands `echo hello` as one argument.
        typed(["bash", "-euxc", commands.replace("-- echo hello", "-- 'echo hello'")], service, served, tmp_path)
    assert out.endswith("0\n")
