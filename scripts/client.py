"""Generate the operations and values of the Python client: python scripts/client.py ARIADNE_CODEGEN FOLDER.

What ariadne-codegen writes is changed in four ways: requests go through our own transport, a value of an enumeration
that a newer server has invented is kept as it is, names in Python are snake_case for type checkers too, and an input
with an unknown field is refused.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = f"""
[tool.ariadne-codegen]
schema_path = "{ROOT}/graphql_api/schema.graphql"
queries_path = "{ROOT}/container_manager/client/operations.graphql"
client_name = "Operations"
include_comments = "none"
target_package_name = "generated"
[tool.ariadne-codegen.scalars.DateTime]
type = "datetime.datetime"
[tool.ariadne-codegen.scalars.JSON]
type = "typing.Any"
"""
OURS = "container_manager.client"
CHANGES = [
    (r"from \.async_base_client import AsyncBaseClient", f"from {OURS}.transport import Transport"),
    (r"AsyncBaseClient", "Transport"),
    (r"from \.base_model import UNSET, UnsetType\n", ""),
    (r"Union\[(Optional\[[^\]]+\]+), UnsetType\] = UNSET", r"\1 = None"),
    # An iteration that is left early closes the connection at once.
    (
        r"async for data in (self\.execute_ws\([^)]*\)):\n +(yield .*)",
        r"async with aclosing(\1) as values:\n            async for data in values:\n                \2",
    ),
    (r"\bAsyncIterator\[(\w+)\]", r"AsyncGenerator[\1, None]"),
    (
        r"^from collections\.abc import AsyncIterator",
        "from collections.abc import AsyncGenerator\nfrom contextlib import aclosing",
    ),
    (r"from \.base_model import BaseModel", f"from {OURS}.values import Value"),
    (r"\(BaseModel\)", "(Value)"),
    (r"from enum import Enum", f"from {OURS}.values import OpenEnum"),
    (r"\(str, Enum\)", "(OpenEnum)"),
    (r"""\balias=("\w+")""", r"validation_alias=\1, serialization_alias=\1"),
]
NOT_NEEDED = {"__init__.py", "async_base_client.py", "base_model.py", "exceptions.py"}


def main(generator: str, target: Path) -> None:
    """Replace the folder `target` by what is generated now."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.toml")
        config.write_text(CONFIG)
        subprocess.run(
            [Path(generator).absolute(), "--config", config], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        made = Path(folder, "generated")
        for path in made.iterdir():
            if path.name in NOT_NEEDED:
                path.unlink()
                continue
            text = path.read_text()
            for pattern, replacement in CHANGES:
                text = re.sub(pattern, replacement, text)
            if path.name == "input_types.py":
                text = text.replace("import Value", "import Input").replace("(Value)", "(Input)")
            path.write_text(text)
        (made / "__init__.py").write_text(
            '"""Made by scripts/client of the schema and operations.graphql. Not to be edited."""\n'
        )
        ruff = [sys.executable, "-m", "ruff"]
        settings = ["--config", str(ROOT / "pyproject.toml"), "--quiet", "--no-cache"]
        wanted = ["--select", "F401,I,UP", "--unsafe-fixes", "--fix", "--exit-zero"]
        subprocess.run([*ruff, "check", *settings, *wanted, made], check=True)
        subprocess.run([*ruff, "format", *settings, made], check=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made, target)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
