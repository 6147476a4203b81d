"""What does one process need to send events to many subscribers, compared with a bare WebSocket broadcast?

    python -m benchmarks.fanout --database-url postgresql://… [--rate 100] [--seconds 15] [--json FILE]

A server process with the role api, a producer that commits events one by one, and subscribers in their own processes.
CPU is that of the server process, including its reading of the log and of the jobs and hosts that events name, divided
by the events delivered. Then the same again while a client queries hosts ten times a second. The database is emptied
first.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

from benchmarks import fleet
from benchmarks.over_http import cpu_seconds, resident, serving

PLAIN = "cursor kind at id message hostName"
FIELDS = f"{PLAIN} job {{ id name status }} host {{ id name }}"
ONE_BY_ONE = f"subscription {{ routingEvents {{ {FIELDS} }} }}"
ONE_BY_ONE_PLAIN = f"subscription {{ routingEvents {{ {PLAIN} }} }}"
BATCHES = f"subscription {{ routingEventBatches(everyMs: 100) {{ {FIELDS} }} }}"
QUERY = "{ hosts(first: 10) { edges { node { id name capacity { availableSlots } } } } }"


def produce(rate: float, each: int, total: int) -> None:
    """Commit events, `each` in a transaction, so many transactions a second; 0 is for ever."""
    from container_manager.domain.kinds import EventKind
    from container_manager.models import ContainerJob
    from container_manager.store.transaction import Transaction, commit

    job = ContainerJob.objects.select_related("host").get()

    def tell(tx: Transaction, items: list[None]) -> list[None]:
        for _ in range(each):
            tx.event(EventKind.JOB_PROGRESS, "The job makes progress, and this is its message.", job=job, host=job.host)
        return items

    due, left = time.perf_counter(), total
    while left > 0 or not total:
        (outcome,) = commit([(tell, None)]).outcomes
        assert outcome is None, outcome
        left, due = left - each, due + 1 / rate
        time.sleep(max(due - time.perf_counter(), 0))


class Client(threading.Thread):
    """Queries hosts ten times a second; keeps the milliseconds of each answer."""

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
        # A busy machine may leave time for one query.
        return statistics.quantiles(self.took, n=100)[-1] if len(self.took) > 1 else max(self.took, default=0.0)


def subscribe(url: str, pid: int, token: str, count: int, seconds: float, query: str) -> dict[str, float]:
    """What the subscribers received and what it cost the server; then the same beside a client with queries."""
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
            other = Client(url, token)
            other.start()
            beside = window(client)
            row |= {"p99 with queries": beside["p99"], "queries' p99": other.finish()}
    return row


def window(client: "subprocess.Popen[str]") -> dict[str, float]:
    """What arrives in the next seconds."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write("go\n")
    client.stdin.flush()
    told: dict[str, float] = json.loads(client.stdout.readline())
    assert told["ordered"], told
    assert told["gaps"] == 0, told
    return told


def flood(url: str, pid: int, token: str, producer: list[str], total: int) -> dict[str, float]:
    """Many events for a few subscribers: how much memory the second half takes."""
    command = ["-m", "benchmarks.subscribers", url.rpartition(":")[2], token, "10", "1000", ONE_BY_ONE]
    with subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "subscribed\n"
        sizes = []
        for _ in range(2):
            subprocess.run([*producer, "--produce", f"100,20,{total // 2}"], check=True)
            sizes.append(resident(pid))
        client.kill()
    return {"events": total, "MB at half": sizes[0], "MB more at the end": sizes[1] - sizes[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--subscribers", type=int, default=200, help="of routingEvents; of batches five times as many")
    parser.add_argument("--flood", type=int, default=100_000, help="events of the last part")
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
    few, many = options.subscribers, options.subscribers * 5
    cases = {
        f"{few} of routingEvents, own fields": (few, ONE_BY_ONE_PLAIN),
        f"{few} of routingEvents, with job and host": (few, ONE_BY_ONE),
        f"{many} of routingEventBatches, with job and host": (many, BATCHES),
    }
    with serving("-m", "benchmarks.broadcast", str(options.rate)) as (url, pid):
        bare = subscribe(url, pid, "", few, options.seconds, "")
        table.row(f"{few} of a bare broadcast", **bare)
    with serving("-m", "container_manager", "serve", "--port", "0", "--role", "api") as (url, pid):
        with subprocess.Popen([*producer, "--produce", f"{options.rate},1,0"]) as background:
            try:
                for name, (count, query) in cases.items():
                    if options.only in name:
                        row = subscribe(url, pid, token, count, options.seconds, query)
                        table.row(name, **row, **{"of bare": row["us/delivery"] / bare["us/delivery"]})
            finally:
                background.kill()
        if options.only in "flood":
            table.row("10 of routingEvents, flooded", **flood(url, pid, token, producer, options.flood))
    if options.json:
        table.as_json(options.json)


if __name__ == "__main__":
    main()
