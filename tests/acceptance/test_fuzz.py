"""A short run of what scripts/fuzz does: no generated operation and no malformed message has a fault."""

from pathlib import Path

import pytest

from tests import fuzz
from tests.postgres import Postgres


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_generated_operations_and_malformed_messages(kind: str, cluster: Postgres, tmp_path: Path) -> None:
    variables = {}
    if kind == "postgresql":
        variables = {
            "CONTAINER_MANAGER_DATABASE_URL": cluster.database(),
            "CONTAINER_MANAGER_SECRET_KEY": "only-for-this-test-only-for-this-test",
        }
    with fuzz.target(tmp_path / "home", 1, **variables) as to:
        fuzz.send_operations(to, 120)
        fuzz.send_malformed_http(to, 100)
        fuzz.send_malformed_frames(to, 100)
        assert to.found.faults == []
        assert fuzz.errors_logged(to) == []
        assert to.found.codes["none"] > 10
