"""What holds on SQLite holds on PostgreSQL."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

from tests.postgres import Postgres
from tests.processes import ROOT, UNMEASURED, environment


@pytest.mark.skipif(connection.vendor == "postgresql", reason="All tests run on PostgreSQL already.")
def test_what_touches_the_database_passes_on_postgresql_as_well(cluster: Postgres, tmp_path: Path) -> None:
    # The rest speaks HTTP, and is the same on both; it runs on PostgreSQL when all does.
    http = ("api_*", "access_table", "front_door", "hostile_engine", "availability", "project")
    rest = [f"--ignore-glob=tests/integration/test_{name}.py" for name in http]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-cov", "--numprocesses=2", "--dist=loadfile",
         "tests/integration", *rest],
        env=environment(tmp_path, CONTAINER_MANAGER_DATABASE_URL=cluster.database(), CI="true", **UNMEASURED),
        cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:]
