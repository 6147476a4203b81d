"""The commands that watch: events, top."""

import asyncio
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from container_manager.cli.remote import output
from container_manager.cli.remote.names import HostName, JobName, find_job, number_of
from container_manager.cli.remote.session import FOLLOWING_PATIENCE, remote

if TYPE_CHECKING:
    from rich.console import RenderableType

    from container_manager.client import AsyncClient, RoutingEventFilter

PAGE = 100
REFRESH_SECONDS = 1.0
BAR = 12
PIPED_WIDTH = 160


@click.command()
@click.option("--follow", is_flag=True, help="Go on with the events that happen, for ever.")
@click.option("--after", metavar="CURSOR", help="Those after this cursor; 0 for all.")
@click.option("--last", default=20, show_default=True, type=click.IntRange(0, 1000), help="How many, without --after.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only such, for example JOB_FINISHED.")
@click.option("--job", type=JobName(), help="Only those about this job.")
@click.option("--host", type=HostName(), help="Only those about this host.")
@remote
async def events(
    client: "AsyncClient", *, as_json: bool, follow: bool, after: str | None, last: int, kinds: tuple[str, ...],
    job: str | None, host: str | None,
) -> None:  # fmt: skip
    """Print what happened; one event a line, the newest last.

    With --follow none is missed and none comes twice, also when the service is restarted meanwhile.
    """
    from container_manager.client import RoutingEventFilter

    given: dict[str, Any] = {}
    if kinds:
        given["kinds"] = [kind.upper() for kind in kinds]
    if job is not None:
        given["job_id"] = (await find_job(client, job)).id
    if host is not None:
        given["host_id"] = (await client.host(host)).id
    filters = RoutingEventFilter.model_validate(given)
    if after is None:
        # The cursor first: what happens between the two requests is followed, or else was listed already.
        after = (await client.api.event_cursor()).event_cursor
        if last:
            stored = (await client.api.stored_events(last, filters)).routing_events.edges
            for edge in stored:
                _print(edge.node.as_json(), as_json=as_json)
                after = max(after, edge.node.cursor, key=int)
    else:
        after = await _print_after(client, after, filters, as_json=as_json)
    if follow:
        client.api.patience = FOLLOWING_PATIENCE
        async for event in client.events(after, filters):
            _print(event.as_json(), as_json=as_json)
            sys.stdout.flush()


async def _print_after(client: "AsyncClient", after: str, filters: "RoutingEventFilter", *, as_json: bool) -> str:
    """Print all stored events after a cursor; returns the last one's."""
    while True:
        page = (await client.api.events_after(after, PAGE, filters)).routing_events
        for edge in page.edges:
            _print(edge.node.as_json(), as_json=as_json)
            after = edge.node.cursor
        if not page.page_info.has_next_page:
            return after


def _print(event: output.Row, *, as_json: bool) -> None:
    if as_json:
        output.as_json_line(event)
        return
    about = f"job {number_of(event['job']['id'])}" if event["job"] else event["hostName"]
    by = f" (by {event['actor']})" if event["actor"] else ""
    at = datetime.fromisoformat(event["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    click.echo(output.safe(f"{event['cursor']:>8}  {at}  {event['kind']:<20}  {about:<16}  {event['message']}{by}"))


@click.command()
@click.option("--once", is_flag=True, help="Print it once; also what happens when the output is no terminal.")
@remote
async def top(client: "AsyncClient", *, as_json: bool, once: bool) -> None:
    """Watch the fleet, the queue and the throughput of the last hour. Ctrl-C ends it."""
    from rich.console import Console
    from rich.live import Live

    first = (await client.api.overview()).as_json()
    if as_json:
        output.as_json(first)
        return
    console = Console()
    if once or not console.is_terminal:
        Console(width=console.width if console.is_terminal else PIPED_WIDTH).print(_screen(first, is_whole=True))
        return
    with Live(_screen(first), console=console, screen=True, auto_refresh=False) as live:
        client.api.patience = FOLLOWING_PATIENCE
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            live.update(_screen((await client.api.overview()).as_json()), refresh=True)


def _screen(overview: output.Row, *, is_whole: bool = False) -> "RenderableType":
    """The overview as text: figures, what waits, hosts, events. As many hosts as fit, unless it is whole."""
    from rich.console import Console, Group
    from rich.text import Text

    stats, queue = overview["jobStats"], overview["queue"]
    now, total = stats["unfinished"], stats["total"]
    lines = [
        Text.assemble(
            ("running ", "dim"), f"{now['running']}  ", ("launching ", "dim"), f"{now['launching'] + now['routed']}  ",
            ("waiting ", "dim"), (f"{now['pending']}", "yellow" if now["pending"] else ""),
            ("   last hour: ", "dim"), f"{total['submitted']} submitted, {total['succeeded']} succeeded, ",
            (f"{total['failed'] + total['timedOut']} failed", "red" if total["failed"] else ""),
            ("   waited ", "dim"), _quantiles(total["queueTime"]), ("   ran ", "dim"), _quantiles(total["runTime"]),
        )
    ]  # fmt: skip
    groups = [f"  {group['jobs']} wait ({group['verdict']}): {output.rejections(group)}" for group in queue["groups"]]
    lines.extend(Text(line, "yellow") for line in groups[:5])
    hosts = [edge["node"] for edge in overview["hosts"]["edges"]]
    events = [edge["node"] for edge in overview["routingEvents"]["edges"]][-8:]
    room = len(hosts) if is_whole else max(Console().height - len(lines) - len(events) - 5, 3)
    # Those that a person should look at come first.
    hosts.sort(key=lambda host: (host["health"]["status"] == "HEALTHY", -host["capacity"]["runningJobs"]))
    more = [Text(f"… and {len(hosts) - room} more hosts", "dim")] if len(hosts) > room else []
    told = [output.safe(f"{event['at'][11:19]}  {event['message']}") for event in events]
    happened = [Text(line, "dim", overflow="ellipsis", no_wrap=True) for line in told]
    return Group(*lines, Text(), _fleet(hosts[:room]), *more, Text(), *happened)


def _fleet(hosts: list[Any]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("HOST", "TYPE", "REGION", "HEALTH", "JOBS", "", "MEMORY MB", "WEIGHT"):
        table.add_column(heading)
    for host in hosts:
        capacity = host["capacity"]
        running, most = capacity["runningJobs"], capacity["maxConcurrentJobs"]
        filled = round(BAR * min(running / most, 1)) if most else 0
        health = host["health"]["status"] if host["isActive"] else "inactive"
        table.add_row(
            Text(output.safe(host["name"] + (" (draining)" if host["isDraining"] else ""))), host["executorType"],
            Text(output.safe(host["region"])),
            Text(health, output.STYLES.get(health, "")), f"{running}/{most}", "█" * filled + "░" * (BAR - filled),
            f"{capacity['reservedMemoryMb']}/{capacity['maxMemoryMb'] or '∞'}", str(host["routingWeight"]),
        )  # fmt: skip
    return table


def _quantiles(figures: output.Row) -> str:
    return " / ".join(output.duration(figures[name]) or "-" for name in ("p50", "p95"))
