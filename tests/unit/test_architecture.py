"""Imports go down only; the pure parts import the standard library alone."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.processes import environment

ROOT = Path(__file__).parents[2]

# A module may import its own layer's row and those below it.
LAYERS = [
    ["asgi"],
    ["container_manager.asgi"],
    ["container_manager.management"],
    ["container_manager.cli"],
    ["container_manager.tasks"],
    ["container_manager.embed"],
    ["graphql_api"],
    ["container_manager.bootstrap", "container_manager.demo", "container_manager.admin_pages"],
    ["container_manager.admin"],
    ["container_manager.service", "container_manager.startup"],
    ["container_manager.process", "container_manager.specs"],
    ["container_manager.control"],
    ["container_manager.events", "container_manager.observability.exposition"],
    ["container_manager.executors.factory"],
    ["container_manager.executors.probe"],
    ["container_manager.store"],
    ["container_manager.models"],
    ["container_manager.fields"],
    ["container_manager.client"],
    ["container_manager.signals"],
    ["container_manager.crypto"],
    ["container_manager.database"],
    ["container_manager.checks"],
    ["container_manager.configuration"],
    ["container_manager.settings"],
    ["container_manager.testing"],
    ["container_manager.executors"],
    ["container_manager.routing"],
    ["container_manager.domain"],
    [
        "container_manager.environment",
        "container_manager.errors",
        "container_manager.observability.logs",
        "container_manager.observability.metrics",
        "container_manager.observability.tracing",
        "container_manager.aio",
        "container_manager.bounded_json",
        "container_manager.clock",
    ],
]
PURE = ("container_manager.routing", "container_manager.domain")
NO_DJANGO = ("container_manager.executors", "container_manager.environment", "container_manager.errors")
NO_DJANGO_BUT = ("container_manager.executors.factory", "container_manager.executors.probe")
NO_QUERIES = ("asgi", "container_manager.cli", "graphql_api")
"""They read and write through the service."""

QUERY = re.compile(r"threads\.(?:read|write)\((?!startup\.prepare)|\.objects\b(?!\.none\(\))|commit_one")
GENERATED = {"migrations", "generated"}
CLIENT_NEEDS = {"httpx", "httpx_sse", "pydantic"}
LONGEST_MODULE, LONGEST_FUNCTION = 400, 60


def modules() -> dict[str, Path]:
    files = [ROOT / "asgi.py", *(ROOT / "container_manager").rglob("*.py"), *(ROOT / "graphql_api").rglob("*.py")]
    named = {}
    for path in files:
        if not GENERATED & set(path.parts):
            parts = path.relative_to(ROOT).with_suffix("").parts
            named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def imports(path: Path) -> set[str]:
    """Modules imported anywhere in the file; `from a import b` is both a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(module: str) -> int | None:
    """The row of the longest prefix."""
    rows = [(len(name), row) for row, names in enumerate(LAYERS) for name in names if is_in(module, name)]
    return max(rows)[1] if rows else None


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def test_imports_go_down_only() -> None:
    known = modules()
    wrong = [
        f"{module} imports {imported}"
        for module, path in known.items()
        for imported in imports(path)
        if imported in known
        and (mine := layer(module)) is not None
        and (theirs := layer(imported)) is not None
        and theirs < mine
    ]
    assert sorted(set(wrong)) == []


def test_every_module_has_a_layer() -> None:
    exempt = {"", ".__main__", ".apps", ".observability"}
    without = {module for module in modules() if layer(module) is None}
    assert without <= {f"container_manager{name}" for name in exempt}


def test_each_layer_has_a_module() -> None:
    known = modules()
    assert [name for row in LAYERS for name in row if not any(is_in(module, name) for module in known)] == []


def test_the_pure_parts_import_the_standard_library_alone() -> None:
    for module, path in modules().items():
        if any(is_in(module, name) for name in PURE):
            outside = {name for name in imports(path) if name.split(".")[0] not in sys.stdlib_module_names}
            assert all(any(is_in(name, pure) for pure in PURE) for name in outside), (module, outside)


def test_the_client_needs_no_part_of_the_service() -> None:
    for module, path in modules().items():
        if is_in(module, "container_manager.client"):
            outside = {name for name in imports(path) if not is_in(name, "container_manager.client")}
            assert {name.split(".")[0] for name in outside} <= CLIENT_NEEDS | sys.stdlib_module_names, module


def test_a_verdict_depends_on_the_domain_and_the_executor_interface_alone() -> None:
    ours = {
        name
        for name in imports(modules()["container_manager.control.job_run.verdict"])
        if is_in(name, "container_manager")
    }
    allowed = ("container_manager.domain", "container_manager.executors.base")
    assert all(any(is_in(name, module) for module in allowed) for name in ours), ours


def test_the_api_and_the_commands_query_through_the_service() -> None:
    for module, path in modules().items():
        if any(is_in(module, name) for name in NO_QUERIES):
            assert QUERY.findall(path.read_text()) == [], module


def test_no_module_and_no_function_is_too_long() -> None:
    for module, path in modules().items():
        text = path.read_text()
        assert len(text.splitlines()) <= LONGEST_MODULE, module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{module}.{node.name}"


def test_executors_never_import_django() -> None:
    for module, path in modules().items():
        if any(is_in(module, name) for name in NO_DJANGO) and module not in NO_DJANGO_BUT:
            assert not any(is_in(name, "django") for name in imports(path)), module


def test_the_environment_is_read_in_one_place() -> None:
    readers = [module for module, path in modules().items() if "os.environ" in path.read_text()]
    # The command line and the ASGI entry point set variables for it before it is loaded.
    assert set(readers) <= {
        "container_manager.environment",
        "container_manager.settings",
        "container_manager.cli.remote.contexts",
        "container_manager.cli.setup",
        "container_manager.cli.serve",
        "container_manager.asgi",
    }


def test_googles_libraries_are_loaded_for_cloud_run_hosts_only() -> None:
    script = """
import django, sys
django.setup()
import container_manager.service, container_manager.executors.cloudrun, graphql_api.application
print(sorted({name.split(".")[0] for name in sys.modules} & {"google", "grpc", "proto"}))
"""
    variables = environment(
        Path(os.environ["CONTAINER_MANAGER_HOME"]), DJANGO_SETTINGS_MODULE="container_manager.settings"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr
