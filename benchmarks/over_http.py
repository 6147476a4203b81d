"""The same through the API: a server in its own process, compared with the least that a GraphQL mutation can do."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import fleet

ROOT = Path(__file__).parents[1]
CLIENTS = 16

SUBMIT_JOBS = """mutation($inputs: [JobInput!]!) {
    submitJobs(inputs: $inputs) { __typename ... on ContainerJob { id status } ... on UserError { message } } }"""
SUBMIT_JOB = """mutation($input: JobInput!) {
    submitJob(input: $input) { __typename ... on ContainerJob { id status } ... on UserError { message } } }"""
INSERT = "mutation($target: String!) { insert(target: $target) { id target } }"


@contextmanager
def serving(*command: str) -> Iterator[tuple[str, int]]:
    """A server process: its address and its process id."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=dict(os.environ, PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"(?:ready|running on) (http://[\d.]+:\d+)", line):
                yield found[1], process.pid
                break
        else:
            raise SystemExit(f"The server has not started: {''.join(lines)}")
    finally:
        process.terminate()
        process.stdout.close()
        process.wait(15)


def cpu_seconds(pid: int) -> float:
    """The CPU seconds of a process, in its own code and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """The memory of a process, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def post(session: aiohttp.ClientSession, url: str, query: str, **variables: Any) -> Any:
    async with session.post(f"{url}/graphql", json={"query": query, "variables": variables}) as answer:
        told = await answer.json()
    assert "errors" not in told, told
    (value,) = told["data"].values()
    return value


async def batch_seconds(url: str, jobs: int) -> float:
    """The duration of one submitJobs, from sending to the last byte."""
    inputs = [
        {"image": "busybox", "name": f"job-{n}", "command": ["true"], "memoryLimitMb": 64, "cpuLimit": 0.1}
        for n in range(jobs)
    ]
    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        answers = await post(session, url, SUBMIT_JOBS, inputs=inputs)
        took = time.perf_counter() - began
    assert len(answers) == jobs
    assert {answer.get("status") for answer in answers} == {"ROUTED"}, answers[0]
    return took


async def cpu_per_request(
    url: str, pid: int, query: str, variables: dict[str, Any], requests: int
) -> tuple[float, float]:
    """Milliseconds of the server's CPU per request with many clients, and requests per second."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CLIENTS)) as session:

        async def client(count: int) -> None:
            for _ in range(count):
                await post(session, url, query, **variables)

        await asyncio.gather(*(client(20) for _ in range(CLIENTS)))
        used, began = cpu_seconds(pid), time.perf_counter()
        await asyncio.gather(*(client(requests // CLIENTS) for _ in range(CLIENTS)))
        took = time.perf_counter() - began
        return (cpu_seconds(pid) - used) * 1000 / requests, requests / took


def batches(table: fleet.Table, hosts: int, jobs: int, sql_seconds: float) -> None:
    """submitJobs, compared with the SQL of the same run that wrote the same rows."""
    with serving("-m", "container_manager", "serve", "--port", "0", "--no-auth") as (url, _):
        taken = sorted(asyncio.run(batch_seconds(url, jobs)) for _ in range(5))[2]
    table.row(
        f"submitJobs over HTTP, {jobs:,} jobs, {hosts:,} hosts",
        jobs_per_s=jobs / taken,
        sql_jobs_per_s=jobs / sql_seconds,
        share=sql_seconds / taken,
    )


def singles(table: fleet.Table, hosts: int, requests: int) -> None:
    """submitJob of 16 clients, compared with a bare insert of 16 clients."""
    fleet.empty()
    fleet.make_hosts(hosts)
    fleet.analyze()
    job = {"input": {"image": "busybox", "command": ["true"], "memoryLimitMb": 64, "cpuLimit": 0.1}}
    with serving("-m", "uvicorn", "benchmarks.bare:application", "--port", "0", "--no-access-log") as (url, pid):
        bare, bare_rate = asyncio.run(cpu_per_request(url, pid, INSERT, {"target": "x"}, requests))
    with serving("-m", "container_manager", "serve", "--port", "0", "--no-auth") as (url, pid):
        ours, rate = asyncio.run(cpu_per_request(url, pid, SUBMIT_JOB, job, requests))
    table.row(
        f"submitJob over HTTP, {CLIENTS} clients, {hosts:,} hosts",
        cpu_ms=ours,
        bare_cpu_ms=bare,
        # A few requests may take less CPU time than the kernel counts.
        **({"ratio": ours / bare} if bare else {}),
        per_s=rate,
        bare_per_s=bare_rate,
    )
