"""The commands about jobs: submit, jobs, job, logs, cancel, retry."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from container_manager.aio import background
from container_manager.cli.remote import files, output
from container_manager.cli.remote.names import HostName, JobName, find_job, number_of
from container_manager.cli.remote.session import (
    FOLLOWING_PATIENCE,
    NO_EXIT_CODE,
    REFUSED,
    TIMED_OUT,
    each,
    pairs,
    remote,
)

if TYPE_CHECKING:
    from container_manager.client import AsyncClient, AsyncJob

T = TypeVar("T")

STRATEGIES = ("weighted", "balanced", "packed")
STATUSES = ("PENDING", "ROUTED", "LAUNCHING", "RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELLED")
WAITED_AT_ONCE = 50
FIRST_SECONDS, SILENCE_SECONDS = 10.0, 0.5
"""`logs` of a job that runs ends when its first line has not come for so long, or another one."""

SHOWN: list[output.Column] = [
    ("NUMBER", "number"),
    ("NAME", "name"),
    ("IMAGE", "image"),
    ("STATUS", "status"),
    ("HOST", "host.name"),
    ("EXIT", "exitCode"),
    ("ATTEMPT", lambda job: f"{job['attempt']}/{job['maxAttempts']}"),
    ("AGE", lambda job: output.age(job["submittedAt"])),
    ("RAN", lambda job: output.duration(job["runSeconds"])),
]


@click.command()
@click.option("--image", help="Image to run; may come from --file.")
@click.option("--name", help="Name for people; it need not be unique.")
@click.option("--memory", "memory_limit_mb", type=int, metavar="MB", help="MiB that it may use.")
@click.option("--cpu", "cpu_limit", type=float, metavar="CORES", help="Cores that it may use.")
@click.option("--prefer", metavar="TYPE", help="docker, cloudrun or simulated: tried first.")
@click.option("--require", metavar="TYPE", help="docker, cloudrun or simulated: nothing else.")
@click.option("--region", metavar="REGION", help="Region that is tried first.")
@click.option("--require-region", metavar="REGION", help="Region that it must run in.")
@click.option("--env", "environment", multiple=True, callback=pairs, metavar="NAME=VALUE", help="Environment variable.")
@click.option("--label", "labels", multiple=True, callback=pairs, metavar="NAME=VALUE", help="Label of the job.")
@click.option("--select", "host_selector", multiple=True, callback=pairs, metavar="NAME=VALUE", help="Label of hosts.")
@click.option("--timeout", "timeout_seconds", type=int, metavar="SECONDS", help="It is stopped after so long.")
@click.option("--queue-timeout", "queue_timeout_seconds", type=int, metavar="SECONDS", help="Fails if it waits longer.")
@click.option("--priority", type=int, help="Higher ones are routed first.")
@click.option("--attempts", "max_attempts", type=int, help="How often it is run when its program fails.")
@click.option("--strategy", type=click.Choice(STRATEGIES, case_sensitive=False), help="How a host is chosen.")
@click.option("--entry-point", metavar="PROGRAM", help="Program to run instead of the image's.")
@click.option("--workdir", "working_dir", metavar="FOLDER", help="Folder in which the program starts.")
@click.option("--user", metavar="USER", help="NAME, UID or UID:GID; where hosts allow it.")
@click.option("--network", help="Network; where hosts allow it.")
@click.option("--key", "idempotency_key", help="The same key with the same job gives the same job back.")
@click.option(
    "-f", "--file", "path", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    help="YAML or JSON: one job or a list of them, with the fields of the API's JobInput. Options come on top.",
)  # fmt: skip
@click.option("--follow", is_flag=True, help="Print its output, and exit with its exit code.")
@click.option("--wait", is_flag=True, help="Wait for its end, and exit with its exit code.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the number of the job.")
@click.argument("command", nargs=-1)
@remote
async def submit(
    client: "AsyncClient", *, as_json: bool, path: Path | None, follow: bool, wait: bool, quiet: bool, **fields: Any
) -> int | None:
    """Submit a job: submit --image IMAGE [OPTIONS] [-- COMMAND…].

    Exits with 1 when it is refused. With --follow or --wait it exits with the job's exit code; 124 when the job ran for
    too long, 125 when it failed without an exit code, and 130 when it was cancelled.
    """
    from container_manager.client import Refused

    jobs = files.jobs(path, _given(fields))
    if len(jobs) > 1 and follow:
        raise click.UsageError("--follow needs one job; use --wait for several.")
    # Before the job, so that everything that happens to it comes after.
    begin = (await client.api.event_cursor()).event_cursor if follow and sys.stderr.isatty() and not as_json else None
    if len(jobs) == 1:
        submitted: list[AsyncJob | Refused] = [await client.submit(jobs[0])]
    else:
        submitted = await client.submit_all(jobs)
    accepted = [job for job in submitted if not isinstance(job, Refused)]
    if not as_json or not (follow or wait):
        _report(submitted, as_json=as_json, quiet=quiet, aside=follow)
    client.api.patience = FOLLOWING_PATIENCE
    if (follow or wait) and any(job.data.waiting_on for job in accepted):
        output.note("It is waited for; Ctrl-C leaves it waiting.")
    code = REFUSED if len(accepted) < len(jobs) else 0
    if follow:
        return await _follow(accepted[0], begin, as_json=as_json)
    if wait and accepted:
        few = asyncio.Semaphore(WAITED_AT_ONCE)
        await asyncio.gather(*(_ended(job, few) for job in accepted))
        if as_json:
            output.as_json([job.data.as_json() for job in accepted] if len(jobs) > 1 else accepted[0].data.as_json())
        else:
            for job in accepted:
                output.note(_end_of(job))
        return next((_exit_code(job) for job in accepted if job.data.status != "SUCCEEDED"), code)
    return code


async def _ended(job: "AsyncJob", few: asyncio.Semaphore) -> None:
    async with few:
        await job.result(check=False)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """The options as fields of a JobInput."""
    given = {name: value for name, value in fields.items() if value not in (None, (), {})}
    for executor, is_required in (("prefer", False), ("require", True)):
        if executor in given:
            given |= {"preferred_executor": given.pop(executor), "executor_required": is_required}
    for region, is_required in (("region", False), ("require_region", True)):
        if region in given:
            given |= {"region_preference": given.pop(region), "region_required": is_required}
    if "entry_point" in given:
        given["entry_point"] = [given["entry_point"]]
    return given


def _report(submitted: list[Any], *, as_json: bool, quiet: bool, aside: bool) -> None:
    """What became of each job. `aside`: on stderr, because stdout has the output of the job."""
    if as_json:
        results = [{"error": str(one)} if isinstance(one, Exception) else one.data.as_json() for one in submitted]
        output.as_json(results if len(results) > 1 else results[0])
        return
    for number, one in enumerate(submitted):
        if isinstance(one, Exception):
            output.say(f"Error: job {number + 1} of {len(submitted)} was refused: {one}", err=True)
        elif quiet:
            click.echo(number_of(one.id), err=aside)
        else:
            output.say(f"Job {number_of(one.id)} {_standing(one)}", err=aside)


def _standing(job: "AsyncJob") -> str:
    data = job.data
    if data.waiting_on is not None:
        advice = "".join(f"\n  It would run if: {one.message}" for one in data.waiting_on.suggestions)
        return f"waits: {data.waiting_on.message}{advice}"
    if data.host is not None:
        return f"is {data.status} on {data.host.name}: {data.routing_reason}"
    return f"is {data.status}."


async def _follow(job: "AsyncJob", begin: str | None, *, as_json: bool) -> int:
    """Print what a job writes until its end, and what has happened to it since the cursor `begin` if there is one."""
    try:
        if begin is not None:
            async with background(_tell_events(job, begin)):
                await _print_lines(job, as_json=as_json)
        else:
            await _print_lines(job, as_json=as_json)
        await job.result(check=False)
    except asyncio.CancelledError:
        number = number_of(job.id)
        output.note(f"Job {number} goes on; `container-manager cancel {number}` ends it.")
        raise
    if as_json:
        output.as_json_line(job.data.as_json())
    else:
        output.note(_end_of(job))
    return _exit_code(job)


async def _print_lines(job: "AsyncJob", *, as_json: bool, times: bool = False) -> None:
    async with aclosing(job.logs()) as lines:
        async for line in lines:
            _print_line(line.as_json(), as_json=as_json, times=times)


def _print_line(line: output.Row, *, as_json: bool, times: bool) -> None:
    if as_json:
        output.as_json_line(line)
    else:
        click.echo(f"{line['at']}  {line['text']}" if times else line["text"], err=line["stream"] == "STDERR")


async def _tell_events(job: "AsyncJob", begin: str) -> None:
    async with aclosing(job.events(begin)) as events:
        async for event in events:
            output.note(f"· {event.message}")


def _end_of(job: "AsyncJob") -> str:
    data = job.data
    code = "" if data.exit_code is None else f", exit code {data.exit_code}"
    ran = f" after {output.duration(data.run_seconds)}" if data.run_seconds is not None else ""
    return f"Job {number_of(job.id)} is {data.status}{ran}{code}{f': {data.error}' if data.error else '.'}"


def _exit_code(job: "AsyncJob") -> int:
    data = job.data
    if data.status == "SUCCEEDED":
        return 0
    if data.status == "TIMED_OUT":
        return TIMED_OUT
    if data.status == "CANCELLED":
        return 130
    return data.exit_code if data.exit_code else NO_EXIT_CODE


@click.command()
@click.option("--status", multiple=True, type=click.Choice(STATUSES, case_sensitive=False), help="In this state.")
@click.option("--failed", is_flag=True, help="FAILED or TIMED_OUT.")
@click.option("--label", "labels", multiple=True, callback=pairs, metavar="NAME=VALUE", help="With this label.")
@click.option("--name", "name_contains", metavar="TEXT", help="With this text in the name.")
@click.option("--image", "image_contains", metavar="TEXT", help="With this text in the image.")
@click.option("--host", "host_name", type=HostName(), help="Whose latest attempt is on this host.")
@click.option("--last", default=50, show_default=True, type=click.IntRange(1, 100_000), help="How many, newest first.")
@click.option("-o", "--output", "paths", metavar="COLUMNS", help="Fields to show, such as id,name,host.name.")
@remote
async def jobs(
    client: "AsyncClient", *, as_json: bool, status: tuple[str, ...], failed: bool, last: int, paths: str | None,
    **filters: Any,
) -> None:  # fmt: skip
    """List jobs, the newest first."""
    from container_manager.client import JobFilter

    wanted = {name: value for name, value in filters.items() if value}
    states = [*(one.upper() for one in status), *(["FAILED", "TIMED_OUT"] if failed else [])]
    chosen = JobFilter.model_validate({**wanted, **({"status": states} if states else {})})
    rows: list[dict[str, Any]] = []
    async for job in client.jobs(chosen):
        shown = job.data.as_json()
        rows.append(shown if as_json else {"number": number_of(job.id), **shown})
        if len(rows) == last:
            break
    if as_json:
        output.as_json(rows)
    else:
        columns = output.columns_of(paths, rows) if paths else SHOWN
        output.table(rows, columns, empty="There is no such job.")


@click.command()
@click.argument("job", type=JobName())
@remote
async def job(client: "AsyncClient", *, as_json: bool, job: str) -> None:
    """Show one job: what it is, where it runs or ran, and its attempts."""
    found = await (await find_job(client, job)).details()
    shown = found.as_json()
    if as_json:
        output.as_json(shown)
        return
    host = shown["host"] or {}
    waiting = shown["waitingOn"] or {"message": "", "suggestions": []}
    output.details(
        [
            ("job", number_of(shown["id"])), ("name", shown["name"]), ("status", shown["status"]),
            ("exit code", shown["exitCode"]), ("failure", shown["failure"]), ("error", shown["error"]),
            ("doing", shown["message"]), ("waits for", waiting["message"]),
            *(("would help", one["message"]) for one in waiting["suggestions"]),
            ("host", host.get("name")), ("why there", shown["routingReason"]),
            ("image", shown["image"]), ("command", shown["command"]), ("environment", shown["environmentNames"]),
            ("memory", shown["memoryLimitMb"] and f"{shown['memoryLimitMb']} MiB"), ("cpu", shown["cpuLimit"]),
            ("labels", output.labels(shown)), ("selects", shown["hostSelector"]), ("priority", shown["priority"]),
            ("submitted", f"{output.age(shown['submittedAt'])} ago by {shown['submittedBy'] or 'the service'}"),
            ("waited", output.duration(shown["queuedSeconds"])), ("ran", output.duration(shown["runSeconds"])),
        ]
    )  # fmt: skip
    click.echo()
    columns: list[output.Column] = [
        ("ATTEMPT", "attempt"), ("STATUS", "status"), ("HOST", "hostName"), ("EXIT", "exitCode"), ("ERROR", "error"),
        ("STARTED", "startedAt"), ("FINISHED", "finishedAt"),
    ]  # fmt: skip
    output.table(shown["attempts"], columns, empty="It had no attempt yet.")


@click.command()
@click.argument("job", type=JobName())
@click.option("--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--timestamps", is_flag=True, help="With the time of each line.")
@remote
async def logs(client: "AsyncClient", *, as_json: bool, job: str, follow: bool, timestamps: bool) -> None:
    """Print what a job has written: its stdout to stdout, its stderr to stderr."""
    found = await find_job(client, job)
    if follow or found.has_ended:
        client.api.patience = FOLLOWING_PATIENCE
        await _print_lines(found, as_json=as_json, times=timestamps)
        return
    async with aclosing(found.logs()) as lines:
        with suppress(StopAsyncIteration):
            patience = SILENCE_SECONDS if found.status == "PENDING" else FIRST_SECONDS
            while line := await _within(patience, anext(lines)):
                _print_line(line.as_json(), as_json=as_json, times=timestamps)
                patience = SILENCE_SECONDS
            output.note(f"The job is {found.status}; --follow waits for more.")


async def _within(seconds: float, value: Awaitable[T]) -> T | None:
    """The value, or None when it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await value
    except TimeoutError:
        return None


@click.command()
@click.argument("jobs", type=JobName(), nargs=-1, required=True, metavar="JOB…")
@remote
async def cancel(client: "AsyncClient", *, as_json: bool, jobs: tuple[str, ...]) -> int | None:
    """Cancel jobs; each is CANCELLED once its container is gone."""
    return await _change(client, jobs, lambda job: job.cancel(), as_json=as_json, verb="is cancelled")


@click.command()
@click.argument("jobs", type=JobName(), nargs=-1, required=True, metavar="JOB…")
@remote
async def retry(client: "AsyncClient", *, as_json: bool, jobs: tuple[str, ...]) -> int | None:
    """Let jobs that have failed run again, as their next attempt."""
    return await _change(client, jobs, lambda job: job.retry(), as_json=as_json, verb="runs again")


async def _change(
    client: "AsyncClient",
    names: tuple[str, ...],
    change: "Callable[[AsyncJob], Awaitable[AsyncJob]]",
    *,
    as_json: bool,
    verb: str,
) -> int | None:
    """Change each job, and say so; see `each`."""

    async def changed(name: str) -> "AsyncJob":
        return await change(await find_job(client, name))

    done, code = await each(names, changed, as_json=as_json)
    if as_json:
        output.as_json([job.data.as_json() for job in done])
    else:
        for job in done:
            output.say(f"Job {number_of(job.id)} {verb}; it is {job.data.status}.")
    return code
