"""What does one process need to tell many subscribers of events, beside a bare WebSocket broadcast?

    python -m benchmarks.fanout --database-url postgresql://… [--rate 100] [--seconds 15] [--json FILE]

A server process of the role api, a producer that commits events one by one, and subscribers in processes of their own.
CPU is that of the server process, its reading of the log and of the jobs and hosts that the events name included,
divided by the events delivered. Afterwards the same again, while somebody asks for hosts ten times a second. The
database is emptied first.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from benchmarks import fleet
from benchmarks.over_http import cpu_seconds, serving

PLAIN = "cursor kind at id message hostName"
FIELDS = f"{PLAIN} job {{ id name status }} host {{ id name }}"
ONE_BY_ONE = f"subscription {{ routingEvents {{ {FIELDS} }} }}"
ONE_BY_ONE_PLAIN = f"subscription {{ routingEvents {{ {PLAIN} }} }}"
BATCHES = f"subscription {{ routingEventBatches(everyMs: 100) {{ {FIELDS} }} }}"
QUERY = "{ hosts(first: 10) { edges { node { id name capacity { availableSlots } } } } }"
FLOOD = 100_000


def produce(rate: float, each: int, total: int) -> None:
    """Commit events, `each` in a transaction, so many transactions a second; 0 is for ever."""
    from container_manager.domain.kinds import EventKind
    from container_manager.models import ContainerJob
    from container_manager.store.transaction import Transaction, commit

    job = ContainerJob.objects.select_related("host").get()

    def tell(tx: Transaction, items: list[None]) -> list[None]:
        for _ in range(each):
            tx.event(EventKind.JOB_PROGRESS, "The job gets on, and this is what it says of it.", job=job, host=job.host)
        return items

    due, left = time.perf_counter(), total
    while left > 0 or not total:
        (outcome,) = commit([(tell, None)]).outcomes
        assert outcome is None, outcome
        left, due = left - each, due + 1 / rate
        time.sleep(max(due - time.perf_counter(), 0))


class Asker(threading.Thread):
    """Asks for hosts, ten times a second; keeps how long each answer took, in ms."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(daemon=True)
        self._request = urllib.request.Request(  # noqa: S310 - ours
            f"{url}/graphql",
            json.dumps({"query": QUERY}).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        self._done = threading.Event()
        self.took: list[float] = []

    def run(self) -> None:
        while not self._done.wait(0.1):
            began = time.perf_counter()
            with urllib.request.urlopen(self._request) as answer:  # noqa: S310 - ours
                assert b"errors" not in answer.read()
            self.took.append((time.perf_counter() - began) * 1000)

    def finish(self) -> float:
        """The 99th percentile."""
        self._done.set()
        self.join()
        return statistics.quantiles(self.took, n=100)[-1]


def subscribe(url: str, pid: int, token: str, count: int, seconds: float, query: str) -> dict[str, float]:
    """What so many subscribers got and what it cost the server; then how it is when others ask something, too."""
    command = ["-m", "benchmarks.subscribers", url.rpartition(":")[2], token, str(count), str(seconds), query]
    with subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "subscribed\n"
        before, began = cpu_seconds(pid), time.perf_counter()
        alone = window(client)
        used, took = cpu_seconds(pid) - before, time.perf_counter() - began
        row = {"us/delivery": used / alone["deliveries"] * 1e6, "core": used / took}
        row |= {"p50 ms": alone["p50"], "p99": alone["p99"]}
        if token:
            asker = Asker(url, token)
            asker.start()
            beside = window(client)
            row |= {"p99 when asked": beside["p99"], "others' p99": asker.finish()}
    return row


def window(client: "subprocess.Popen[str]") -> dict[str, float]:
    """What has come in the next seconds."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write("go\n")
    client.stdin.flush()
    told: dict[str, float] = json.loads(client.stdout.readline())
    assert told["ordered"], told
    assert told["gaps"] == 0, told
    return told


def resident(pid: int) -> float:
    """MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def flood(url: str, pid: int, token: str, producer: list[str]) -> dict[str, float]:
    """Many events to a few subscribers; how much memory the second half has taken."""
    command = ["-m", "benchmarks.subscribers", url.rpartition(":")[2], token, "10", "1000", ONE_BY_ONE]
    with subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "subscribed\n"
        sizes = []
        for _ in range(2):
            subprocess.run([*producer, "--produce", f"100,20,{FLOOD // 2}"], check=True)
            sizes.append(resident(pid))
        client.kill()
    return {"events": FLOOD, "MB at half": sizes[0], "MB more at the end": sizes[1] - sizes[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--produce", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    table = fleet.Table(postgresql=fleet.prepare(options.database_url) == "postgresql")
    if options.produce:
        rate, each, total = options.produce.split(",")
        produce(float(rate), int(each), int(total))
        return
    fleet.empty()
    fleet.make_hosts(10)
    fleet.make_jobs(1, status="running", hosts=1)
    from container_manager.startup import first_token

    token = first_token()
    assert token is not None
    producer = [sys.executable, "-m", "benchmarks.fanout", "--database-url", options.database_url]
    cases = {
        "200 of routingEvents, own fields": (200, ONE_BY_ONE_PLAIN),
        "200 of routingEvents, with job and host": (200, ONE_BY_ONE),
        "1000 of routingEventBatches, with job and host": (1000, BATCHES),
    }
    with serving("-m", "benchmarks.broadcast", str(options.rate)) as (url, pid):
        bare = subscribe(url, pid, "", 200, options.seconds, "")
        table.row("200 of a bare broadcast", **bare)
    with serving("-m", "container_manager", "serve", "--port", "0", "--role", "api") as (url, pid):
        with subprocess.Popen([*producer, "--produce", f"{options.rate},1,0"]) as background:
            for name, (count, query) in cases.items():
                if options.only in name:
                    row = subscribe(url, pid, token, count, options.seconds, query)
                    table.row(name, **row, **{"of bare": row["us/delivery"] / bare["us/delivery"]})
            background.kill()
        if options.only in "flood":
            table.row("10 of routingEvents, flooded", **flood(url, pid, token, producer))
    if options.json:
        table.as_json(options.json)


if __name__ == "__main__":
    main()
