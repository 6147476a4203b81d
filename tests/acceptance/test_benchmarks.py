"""Every benchmark runs, on small sizes: what it asserts holds, and its references run. No time is judged."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.engines import Engine
from tests.postgres import Postgres
from tests.processes import ROOT, UNMEASURED, environment

ROUTING = [
    "--hosts=3", "--active=20", "--times=1", "--batch=50", "--batch-hosts=20", "--pending=100", "--requests=32",
]  # fmt: skip


def run(home: Path, name: str, *options: str) -> list[dict]:
    """The rows of a benchmark."""
    figures = home / "figures.json"
    variables = {"PATH": os.environ["PATH"], **UNMEASURED}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *options, f"--json={figures}"],
        env=environment(home, **variables), cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows: list[dict] = json.loads(figures.read_text())
    return rows


def test_routing(cluster: Postgres, tmp_path: Path) -> None:
    rows = run(tmp_path, "routing", f"--database-url={cluster.database()}", *ROUTING)
    assert len(rows) == 7
    assert rows[0]["pgbench_ms"] > 0


def test_curves(tmp_path: Path) -> None:
    drawn = tmp_path / "curves.svg"
    rows = run(tmp_path, "curves", "--hosts=2,3", "--active=0,4", "--times=1", f"--svg={drawn}")
    assert [row["what"] for row in rows] == [
        f"single decision, {hosts} hosts, {active} active jobs" for hosts, active in ((2, 0), (3, 0), (2, 4))
    ]
    assert ElementTree.parse(drawn).getroot().tag.endswith("svg")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_execution(kind: str, cluster: Postgres, tmp_path: Path) -> None:
    database = [f"--database-url={cluster.database()}"] if kind == "postgresql" else []
    drained, single = run(tmp_path, "execution", *database, "--jobs=40", "--singles=5", "--hosts=2")
    assert drained["jobs/s"] > 0
    assert single["ms p50"] > 0
    assert ("pgbench/s" in drained) == (kind == "postgresql")


def test_endurance(tmp_path: Path) -> None:
    (row,) = run(tmp_path, "endurance", "--decisions=200", "--hosts=2")
    assert min(row["MB at the end"], row["MB after 5 %"]) > 0


def test_fanout(cluster: Postgres, tmp_path: Path) -> None:
    options = ["--seconds=1", "--subscribers=10", "--flood=2000", f"--database-url={cluster.database()}"]
    rows = run(tmp_path, "fanout", *options)
    assert [row["what"].split(" ", 1)[1] for row in rows] == [
        "of a bare broadcast", "of routingEvents, own fields", "of routingEvents, with job and host",
        "of routingEventBatches, with job and host", "of routingEvents, flooded",
    ]  # fmt: skip


def test_watching(engine: Engine, tmp_path: Path) -> None:
    rows = run(tmp_path, "watching", "--containers=4", "--seconds=1", f"--socket={engine.socket}")
    assert [row["what"].split()[0] for row in rows] == ["starting", "watching", "cancelling"]


def test_submit_to_start(engine: Engine, tmp_path: Path) -> None:
    rows = run(tmp_path, "submit_to_start", "--jobs=2", f"--socket={engine.socket}")
    assert {row["what"] for row in rows} >= {"engine create + start", "submitJob to started"}


def test_a_reference_that_fails_shows_its_own_error(cluster: Postgres) -> None:
    from benchmarks import pgbench

    program = pgbench.find()
    assert program is not None
    with pytest.raises(SystemExit, match=r"pgbench has failed: (.|\n)*nowhere"):
        pgbench.run(program, "SELECT * FROM nowhere;", cluster.database(), 1, "tps")


def test_cost(tmp_path: Path) -> None:
    (row,) = run(tmp_path, "cost", "--operations=20", "--hosts=4", "--jobs=20")
    assert -1 <= row["correlation"] <= 1
    assert row["us_per_cost"] > 0


def test_attack(tmp_path: Path) -> None:
    classes = ["chunks without end", "4,900 jobs to plan", "hosts, 60 aliases", "long commands, not read"]
    rows = run(tmp_path, "attack", "--seconds=0.5", "--rest=0", "--only", *classes)
    assert [row["what"] for row in rows] == [*classes, "memory, MB"]
    assert all(row["answers"] for row in rows[:-1])
    assert max(row["peak MB"] for row in rows[:-1]) < 300


def test_peers(cluster: Postgres, tmp_path: Path) -> None:
    options = ["--requests=32", "--rounds=1", "--hosts=3", f"--database-url={cluster.database()}"]
    rows = run(tmp_path, "peers", *options)
    assert [row["what"].split(",")[0] for row in rows] == [
        "bare ASGI answer", "bare insert mutation", "submitJob", "submitJob", "hosts(first: 50)", "pgbench's transaction",
    ]  # fmt: skip
    assert all(row["per s"] > 0 for row in rows)


def test_dashboard(tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium).")
    rows = run(tmp_path, "dashboard", "--hosts=5", "--jobs=20", "--events=50", "--minutes=0.1")
    assert [row["what"] for row in rows] == ["/", "/fleet", "/jobs", "/events", "/queue"]
    assert all(row["MB after"] > 0 for row in rows)
