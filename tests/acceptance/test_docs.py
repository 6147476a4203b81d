"""The documentation: it is built without a warning, is complete, and what it tells to type works."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from container_manager.cli.main import main
from container_manager.domain.kinds import EventKind
from tests.certificates import Authority
from tests.client import CREATE_HOST, JOB, SUBMIT
from tests.eventually import eventually_sync
from tests.pages import SETTINGS, blocks, page
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
    assert all(f"{name}<" in page["settings"] for name in SETTINGS)
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


SHELL = ["tutorial.md", "terminal.md", "api.md", "operating.md"]
GRAPHQL = ["api.md", "cloudrun.md", "hosts.md", "why.md"]
TRIED = {
    "sh": {*SHELL, "clients.md", "deploy.md", "README.md"},
    "graphql": {*GRAPHQL},
    "python": {"python.md", "django.md", "executors.md", "checks.md", "README.md"},
    "yaml": {"operating.md"},
    "json": {"agents.md"},
    "toml": {"executors.md"},
}
"""Which pages a test tries: here, or in the test module that has the page's name in it."""


def test_every_block_is_tried() -> None:
    modules = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    named = {*SHELL, *GRAPHQL, *re.findall(r"(?:blocks|page)\(\"(\S+?)\"", modules)}
    for name in [*(path.name for path in DOCS.glob("*.md")), "README.md"]:
        for language in {block.language for block in page(name)} - {"", "text"}:
            assert name in TRIED.get(language, ()), f"{name} shows {language} that no test tries"
            assert name in named


@pytest.fixture
def service(tmp_path: Path) -> dict[str, str]:
    """A new service; what its user has in the environment."""
    programs = Path(sys.executable).parent
    return environment(
        tmp_path / "home", PATH=f"{programs}:{os.environ['PATH']}", XDG_CONFIG_HOME=str(tmp_path / "config"), HOST="sim"
    )


def typed(command: str | list[str], variables: dict[str, str], served: Served, cwd: Path) -> str:
    place = {"URL": served.url, "TOKEN": served.token}
    done = subprocess.run(
        command, env={**variables, **place}, cwd=cwd, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("name", SHELL)
def test_what_a_page_tells_to_type_works(name: str, service: dict[str, str], tmp_path: Path) -> None:
    with Served(tmp_path / "home") as served:
        if name != "tutorial.md":
            served.query(served.token, CREATE_HOST, input=SIMULATED)
        # `plan` exits with 1 when some job would have to wait, as it may here.
        script = re.sub(r"(?m)^(container-manager plan .*)$", r"\1 || [ $? = 1 ]", "\n".join(blocks(name, "sh")))
        # A subscription has no end of its own.
        script = re.sub(r"(?m)^(curl -sN .*)$", r"\1 | sed '/JOB_SUBMITTED/q'", script)
        out = typed(["bash", "-euxc", script], service, served, tmp_path)
    assert '"errors"' not in out
    if name == "api.md":
        assert '"status":"ROUTED"' in out
        assert '"kind":"JOB_SUBMITTED"' in out
    if name == "tutorial.md":
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
    (example,) = blocks("README.md", "python")
    with Served(tmp_path / "home") as served:
        served.query(served.token, CREATE_HOST, input=SIMULATED)
        example = example.replace("http://127.0.0.1:8000", served.url)
        out = typed([sys.executable, "-c", f"token = {served.token!r}\n{example}"], service, served, tmp_path)
        _, commands, _ = blocks("README.md", "sh")  # the others start the service and the tests
        commands = commands.replace("http://127.0.0.1:8000 --token cm_…", f"{served.url} --token {served.token}")
        # The simulator understands `echo hello` as one argument.
        typed(["bash", "-euxc", commands.replace("-- echo hello", "-- 'echo hello'")], service, served, tmp_path)
    assert out.endswith("0\n")


@pytest.mark.parametrize("name", GRAPHQL)
def test_the_operations_of_a_page_work(name: str, tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_text(authority.pem)
    certificate, key = map(json.dumps, authority.issue("cm"))
    yours = {"/etc/cm/ca.pem": str(tmp_path / "ca.pem"), 'cert: "…"': f"cert: {certificate}", 'key: "…"': f"key: {key}"}
    with Served(tmp_path / "home") as served:
        host = served.query(served.token, CREATE_HOST, input=SIMULATED)
        job = served.query(served.token, SUBMIT, input={"image": "busybox", "command": ["echo hello; exit 0"]})
        eventually_sync(lambda: served.query(served.token, JOB, id=job["id"])["status"] == "SUCCEEDED", 20)
        for shown in blocks(name, "graphql"):
            document = functools.reduce(lambda text, pair: text.replace(*pair), yours.items(), shown)
            declared = document.partition("{")[0]
            variables = {"job": job["id"], "host": host["id"]}
            variables = {key: value for key, value in variables.items() if f"${key}:" in declared}
            streamed = document.startswith("subscription")
            answer = httpx.post(
                f"{served.url}/graphql",
                json={"query": document, "variables": variables},
                headers={
                    "Authorization": f"Bearer {served.token}",
                    "Accept": "text/event-stream" if streamed else "application/json",
                },
                timeout=30,
            ).text
            assert '"errors"' not in answer, answer
            assert "hello" in answer if streamed else '"data"' in answer
            if document.startswith("mutation"):
                assert '"message"' not in answer, answer


def test_metrics_are_read_with_the_settings_shown_for_prometheus(tmp_path: Path) -> None:
    (text,) = blocks("operating.md", "yaml")
    (job,) = yaml.safe_load(text)["scrape_configs"]
    # What is not given has Prometheus's defaults: /metrics over HTTP, with `credentials` as a bearer token.
    assert job.keys() == {"job_name", "authorization", "static_configs"}
    assert job["authorization"].keys() == {"credentials"}
    with Served(tmp_path / "home") as served:
        headers = {"Authorization": f"Bearer {served.token}"}
        assert "container_manager_build_info" in httpx.get(f"{served.url}/metrics", headers=headers).text


def test_variables_that_are_named_are_settings() -> None:
    others = {f"CONTAINER_MANAGER_{name}" for name in ("URL", "TOKEN", "CONTEXT", "JOB", "ATTEMPT")}
    for path in [*DOCS.glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "deploy").rglob("*")]:
        if path.is_file():
            named = set(re.findall(r"CONTAINER_MANAGER_[A-Z_]*[A-Z]", path.read_text()))
            assert named <= SETTINGS | others, path.name
