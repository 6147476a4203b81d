"""The dashboard in Chromium, beside a large fleet and a stream of events.

    python -m benchmarks.dashboard [--hosts 1000] [--jobs 100000] [--events 100] [--minutes 10] [--pages PAGE ...]

For each page: when its first content is painted and when its data is there, the longest time for which its main thread
was busy, and the memory of its scripts after the first part and at the end, each after a garbage collection. Chromium,
the service and the client that submits jobs share the machine.
"""

import argparse
import asyncio
import shutil
import time
from typing import Any

import aiohttp
from playwright.async_api import CDPSession, Page, async_playwright

from benchmarks import fleet
from benchmarks.over_http import SUBMIT_JOB, post, serving

PAGES = {"/": ".tile", "/fleet": "tbody tr", "/jobs": "tbody tr", "/events": ".events li", "/queue": "main p"}
EVENTS_OF_A_JOB = 5
CREATE = """mutation($input: HostInput!) { createHost(input: $input) {
    __typename ... on ExecutorHost { id } ... on UserError { message } } }"""
OBSERVE = """
    window.longest = 0;
    new PerformanceObserver((list) => {
        for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
    }).observe({ type: "longtask", buffered: true });
"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


async def submit(url: str, rate: float) -> None:
    """Jobs for the simulator, so many a second, without end."""
    job = {"image": "busybox", "name": "stream", "preferredExecutor": "SIMULATED", "executorRequired": True}
    async with aiohttp.ClientSession() as session:
        due = time.monotonic()
        while True:
            await post(session, url, SUBMIT_JOB, input=job)
            due += 1 / rate
            await asyncio.sleep(max(due - time.monotonic(), 0))


async def heap(session: CDPSession) -> float:
    """The memory of the page's scripts after a garbage collection, in MB."""
    await session.send("HeapProfiler.collectGarbage")
    metrics = {entry["name"]: entry["value"] for entry in (await session.send("Performance.getMetrics"))["metrics"]}
    return float(metrics["JSHeapUsedSize"]) / 1e6


async def measure(page: Page, session: CDPSession, address: str, ready: str, seconds: float) -> dict[str, Any]:
    await page.goto(address)
    await page.wait_for_selector(ready)
    there = await page.evaluate("performance.now()")
    painted = await page.evaluate(PAINTED)
    # What the start of the page takes is in the first two figures.
    await asyncio.sleep(seconds / 4)
    await page.evaluate("window.longest = 0")
    before = await heap(session)
    await page.evaluate("window.longest = 0")
    await asyncio.sleep(seconds * 3 / 4)
    busy = await page.evaluate("window.longest")
    after = await heap(session)
    return {"painted ms": painted, "data ms": there, "longest task ms": busy, "MB before": before, "MB after": after}


async def browse(url: str, arguments: argparse.Namespace, table: fleet.Table) -> None:
    async with aiohttp.ClientSession() as session:
        for number in range(4):
            config = {"accept": "preferred", "run_ms": 200, "launch_ms": 1}
            host = {
                "name": f"simulator-{number}",
                "executorType": "SIMULATED",
                "maxConcurrentJobs": 50,
                "config": config,
            }
            told = await post(session, url, CREATE, input=host)
            assert told["__typename"] == "ExecutorHost", told
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("Chromium is not installed (Debian: apt-get install chromium).")
    submitting = asyncio.create_task(submit(url, arguments.events / EVENTS_OF_A_JOB))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page(viewport={"width": 1360, "height": 900})
        await page.add_init_script(OBSERVE)
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable")
        for path in arguments.pages:
            seconds = arguments.minutes * 60 / len(arguments.pages)
            table.row(path, **await measure(page, session, url + path, PAGES[path], seconds))
            assert not submitting.done(), submitting.exception()
        await browser.close()
    submitting.cancel()


def main(arguments: argparse.Namespace) -> None:
    kind = fleet.prepare(arguments.database_url)
    fleet.empty()
    fleet.make_hosts(arguments.hosts)
    fleet.make_jobs(arguments.jobs, status="succeeded", hosts=arguments.hosts)
    fleet.analyze()
    table = fleet.Table(postgresql=kind == "postgresql")
    with serving("-m", "container_manager", "serve", "--port", "0", "--no-auth") as (url, _):
        asyncio.run(browse(url, arguments, table))
    if arguments.json:
        table.as_json(arguments.json)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--events", type=float, default=100)
    parser.add_argument("--minutes", type=float, default=10, help="of all pages together")
    parser.add_argument("--pages", nargs="*", default=list(PAGES), choices=PAGES)
    parser.add_argument("--database-url", default="", help="PostgreSQL; otherwise a SQLite file of its own")
    parser.add_argument("--json", default="", help="a file for the figures, or - for stdout")
    main(parser.parse_args())
