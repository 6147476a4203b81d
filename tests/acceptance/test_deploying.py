"""What deploy/ has, as far as it can be tried without a cluster: the chart, Compose, and the page about them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.pages import SETTINGS, blocks
from tests.processes import ROOT, Served, environment

CHART = ROOT / "deploy/helm"
HELM = Path(sys.executable).with_name("helm")
NEEDED = ["--set", "existingSecret=cm", "--set", "allowedHosts={cm.example.org,b.example.org}"]


def helm(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=60, check=False)


def rendered(release: str, *options: str) -> dict[tuple[str, str], dict]:
    """The chart's objects, by kind and name."""
    done = helm("template", release, CHART, *NEEDED, *options)
    assert done.returncode == 0, done.stderr
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--set", "ingress.enabled=true,ingress.className=nginx,worker.replicas=1"],
        ["--set", "serviceAccount.create=false,trustedProxies={10.0.0.0/8},imagePullSecrets[0].name=mine"],
        ["--set", "serviceAccount.annotations.a=b,podAnnotations.a=b,nodeSelector.a=b,settings.EVENT_DAYS=30"],
    ],
)
def test_the_chart_makes_what_kubernetes_takes(options: list[str]) -> None:
    linted = helm("lint", "--strict", CHART, *NEEDED, *options)
    assert linted.returncode == 0, linted.stdout
    for found in rendered("cm", *options).values():
        kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)


def test_its_pods_get_settings_that_exist_and_no_rights() -> None:
    # A service of this name makes Kubernetes add CONTAINER_MANAGER_PORT, which is no setting, unless it is told not to.
    objects = rendered("container-manager", "--set", "settings.EVENT_DAYS=30,settings.INTROSPECTION=false")
    for role in ("api", "worker"):
        pod = objects["Deployment", f"container-manager-{role}"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert variables.keys() <= SETTINGS
        assert variables["CONTAINER_MANAGER_ALLOWED_HOSTS"] == "cm.example.org,b.example.org"
        assert (variables["CONTAINER_MANAGER_EVENT_DAYS"], variables["CONTAINER_MANAGER_INTROSPECTION"]) == (
            "30",
            "false",
        )
        assert container["args"] == ["serve", "--host", "0.0.0.0", "--role", role]
        assert not pod["enableServiceLinks"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        user = re.search(r"^USER (\d+)$", (ROOT / "deploy/Dockerfile").read_text(), re.M)[1]
        assert pod["securityContext"]["runAsUser"] == int(user)
    service = objects["Service", "container-manager"]["spec"]["selector"]
    labels = objects["Deployment", "container-manager-api"]["spec"]["template"]["metadata"]["labels"]
    assert service.items() <= labels.items()
    monitor = rendered("cm", "--set", "metrics.enabled=true,metrics.tokenSecret=prometheus")
    (endpoint,) = monitor["PodMonitor", "cm-container-manager"]["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "prometheus", "key": "token"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "existingSecret="], "existingSecret: String length must be greater than or equal to 1"),
        (["--set", "replicas=3"], "Additional property replicas is not allowed"),
        (["--set", "settings.CONTAINER_MANAGER_EVENT_DAYS=3"], "settings"),
        (["--set", "settings.SECRET_KEY=secret"], "settings"),
        (["--set", "metrics.enabled=true"], "tokenSecret"),
    ],
)
def test_wrong_values_are_named(options: list[str], message: str) -> None:
    done = helm("template", "cm", CHART, *NEEDED, *options)
    assert done.returncode == 1
    assert message in done.stderr


def test_settings_of_a_file_are_as_written_and_give_time_to_stop(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("settings: {MAX_BODY_BYTES: 16777216, DEFAULT_CPU: 0.5, DRAIN_SECONDS: 90}")
    pod = rendered("cm", "-f", str(tmp_path / "mine.yaml"))["Deployment", "cm-container-manager-api"]["spec"][
        "template"
    ]
    values = {variable["name"]: variable.get("value") for variable in pod["spec"]["containers"][0]["env"]}
    assert values["CONTAINER_MANAGER_MAX_BODY_BYTES"] == "16777216"
    assert values["CONTAINER_MANAGER_DEFAULT_CPU"] == "0.5"
    assert values["CONTAINER_MANAGER_DRAIN_SECONDS"] == "90"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 115
    (one,) = rendered("cm", "--set", "ingress.enabled=true,ingress.hosts={cm.example.org}")[
        "Ingress", "cm-container-manager"
    ]["spec"]["rules"]
    assert one["host"] == "cm.example.org"


def test_the_version_of_the_chart_is_that_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert (chart["version"], chart["appVersion"]) == (version, version)


DOCKER = """#!/bin/sh
case "$*" in
"compose up"*) exit ;;
"compose run --rm api-1 "*) shift 4; exec container-manager "$@" ;;
*) exit 1 ;;
esac
"""


GIT = f"""#!/bin/sh
mkdir -p "$3" && cp -r {ROOT}/deploy "$3"
"""
PYTHON = f"""#!/bin/sh
mkdir -p .venv/bin && ln -s /bin/true .venv/bin/pip && ln -s {HELM.parent}/container-manager .venv/bin
"""
SYSTEMD_RUN = """#!/bin/sh
while case "$1" in --*) ;; *) false ;; esac; do shift; done
exec "$@"
"""


def test_what_the_page_about_deploying_tells_to_type_works(tmp_path: Path) -> None:
    """Docker, kubectl and systemd are stand-ins that run our part."""
    compose, create, chart, systemd, pgbouncer = blocks("deploy.md", "sh")
    programs = tmp_path / "bin"
    programs.mkdir()
    stand_ins = {"docker": DOCKER, "git": GIT, "python3": PYTHON, "systemd-run": SYSTEMD_RUN}
    for name, text in {**stand_ins, **dict.fromkeys(["kubectl", "useradd", "systemctl"], "#!/bin/sh\n")}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    sources = tmp_path / "sources"
    shutil.copytree(ROOT / "deploy", sources / "deploy")
    path = f"{programs}:{HELM.parent}:{os.environ['PATH']}"
    with Served(tmp_path / "home") as served:
        variables = {**environment(tmp_path / "home", PATH=path), "TOKEN": served.token}

        def run(script: str) -> str:
            script = script.replace("/var/run/docker.sock", "/").replace("http://cm.example.org:8000", served.url)
            done = subprocess.run(
                ["bash", "-euc", script],
                cwd=sources,
                env=variables,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert run(compose).startswith("cm_")
        variables["TOKEN"] = run("container-manager token create --name again --role admin").strip()
        assert '{"data":{"createHost":' in run(create)
        (tmp_path / "etc/systemd/system").mkdir(parents=True)
        run("container-manager token revoke me")
        assert run(systemd.replace("/opt/", f"{tmp_path}/opt/").replace("/etc/", f"{tmp_path}/etc/")).startswith("cm_")
    settings = tmp_path / "etc/container-manager.env"
    assert settings.stat().st_mode & 0o777 == 0o600
    assert {line.partition("=")[0] for line in settings.read_text().splitlines()} <= SETTINGS
    assert "kind: Ingress" in run(chart.replace("helm install", "helm template"))
    for line in pgbouncer.splitlines():
        name, _, _ = line.partition("=")
        assert name in SETTINGS
    units = {path.name for path in (tmp_path / "etc/systemd/system").iterdir()}
    started = set(re.findall(r"container-manager-\w+@?", systemd))
    assert {f"{unit}.service" for unit in started} == units


def test_compose_gives_settings_that_exist_and_a_root_that_is_not_written() -> None:
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    for name in ("api-1", "api-2", "worker-1", "worker-2"):
        assert services[name]["read_only"]
        assert services[name]["environment"].keys() <= SETTINGS
