"""What the image installs: locked with hashes, as pyproject.toml asks, under licences that users can accept."""

import json
import re
import subprocess
import tomllib
from importlib.metadata import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.processes import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(
    re.fullmatch(r"(\S+)==(\S+) --hash=sha256:[0-9a-f]{64}", line).groups()
    for line in (ROOT / "deploy/requirements.lock").read_text().splitlines()
    if not line.startswith("#")
)
PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|Python Software Foundation|PSF|Mozilla|MPL|Unlicense|0BSD|HPND|LGPL|Lesser", re.I
)
IN_THE_IMAGE = ["postgres", "cloudrun", "cloudrun-logs", "opentelemetry"]


def test_the_lock_satisfies_the_project() -> None:
    extras = PROJECT["optional-dependencies"]
    locked = {canonicalize_name(name): version for name, version in LOCK.items()}
    for text in [*PROJECT["dependencies"], *(text for extra in IN_THE_IMAGE for text in extras[extra])]:
        wanted = Requirement(text)
        if wanted.name == "container-manager":  # with another extra
            continue
        version = locked.get(canonicalize_name(wanted.name))
        assert version is not None, f"{wanted.name} is missing; run scripts/lock"
        assert wanted.specifier.contains(version), f"{text} does not fit {version}; run scripts/lock"


@pytest.mark.parametrize("name", sorted(LOCK))
def test_licences_can_be_accepted(name: str) -> None:
    about = metadata(name)
    told = [about.get("License-Expression") or "", about.get("License") or "", *(about.get_all("Classifier") or [])]
    licences = [text for text in told[:2] if text] + [text for text in told[2:] if text.startswith("License ::")]
    assert any(PERMISSIVE.search(text) for text in licences), licences
    assert not any(
        re.search(r"\bA?GPL|Affero|(?<!Lesser )General Public", text) for text in licences if "Lesser" not in text
    )


def test_the_bill_of_materials_has_what_is_locked() -> None:
    done = subprocess.run(["scripts/sbom"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    bill = json.loads(done.stdout)
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "container-manager"
    assert {component["name"]: component["version"] for component in bill["components"]} == LOCK
    assert all(component["externalReferences"][0]["hashes"] for component in bill["components"])


def test_the_image_gets_every_package_and_may_read_what_it_copies() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "deploy/Dockerfile").read_text(), re.M)
    sources = {source for line in copied for source in line.split()}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages == {"container_manager", "graphql_api", "dashboard"}
    assert packages <= sources
    readable = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sources == readable
