"""The commands that explain: explain, why-not, plan, queue."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from container_manager.cli.remote import files, output
from container_manager.cli.remote.names import HostName, JobName, find_hosts, find_job, number_of
from container_manager.cli.remote.session import REFUSED, counts, remote

if TYPE_CHECKING:
    from container_manager.client import AsyncClient, HostInput, JobInput
    from container_manager.client.generated.fragments import HostFields, JobDetails

HOLDING = ("ROUTED", "LAUNCHING", "RUNNING")
MOST_MOVED = 100


@click.command()
@click.argument("job", type=JobName())
@click.option("--hosts", "most", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many hosts.")
@click.option("--all", "every", is_flag=True, help="All decisions; otherwise only the newest.")
@remote
async def explain(client: "AsyncClient", *, as_json: bool, job: str, most: int, every: bool) -> None:
    """Show why a job runs where it does, or waits: hosts by checks."""
    explained = (await (await find_job(client, job)).explain(most)).as_json()
    if as_json:
        output.as_json(explained)
        return
    output.say(
        f"Job {' '.join(filter(None, (number_of(explained['id']), explained['name'])))} is {explained['status']}."
    )
    _tell_waiting(explained["waitingOn"])
    for decision in explained["decisions"] if every else explained["decisions"][:1]:
        output.say(
            f"\nAttempt {decision['attempt']}, decided {output.age(decision['decidedAt'])} ago: {decision['reason']}"
        )
        _show_hosts([edge["node"] for edge in decision["hosts"]["edges"]])
        if decision["hosts"]["pageInfo"]["hasNextPage"]:
            output.note(f"There are more hosts; --hosts shows more than {most}.")
    if not explained["decisions"]:
        click.echo("It was not decided yet where it runs.")


def _tell_waiting(waiting: output.Row | None) -> None:
    if waiting is None:
        return
    output.say(f"It waits: {waiting['message']}")
    for suggestion in waiting["suggestions"]:
        output.say(f"  It would run if: {suggestion['message']}")


def _show_hosts(hosts: list[output.Row]) -> None:
    """A table of hosts by the checks that some host fails, and each failure in a sentence."""
    failing = list(dict.fromkeys(check["code"] for host in hosts for check in host["checks"] if not check["passed"]))

    def cell(code: str) -> Any:
        return lambda host: next(
            ("ok" if check["passed"] else "no" for check in host["checks"] if check["code"] == code), "-"
        )

    columns: list[output.Column] = [
        ("", lambda host: "→" if host["chosen"] else ""),
        ("HOST", "hostName"),
        ("VERDICT", "verdict"),
        ("WEIGHT", "weight"),
        *((code, cell(code)) for code in failing),
    ]
    output.table(hosts, columns, empty="There was no host, or the checks of the hosts are no longer kept.")
    for host in hosts:
        for check in host["checks"]:
            if not check["passed"]:
                output.say(f"  {host['hostName']} {check['message']}")


@click.command("why-not")
@click.argument("job", type=JobName())
@click.argument("host", type=HostName())
@remote
async def why_not(client: "AsyncClient", *, as_json: bool, job: str, host: str) -> None:
    """Show each check of one host for one job, as they are now."""
    answer = (await (await find_job(client, job)).why_not(host)).as_json()
    if as_json:
        output.as_json(answer)
        return
    takes = "can take it now" if answer["verdict"] == "FEASIBLE" else f"cannot take it: {answer['verdict']}"
    output.say(f"{answer['hostName']} {takes}.")
    columns: list[output.Column] = [
        ("CHECK", "code"), ("PASSED", lambda check: "ok" if check["passed"] else "no"), ("NEEDED", "needed"),
        ("AVAILABLE", "available"),
    ]  # fmt: skip
    output.table(answer["checks"], columns, empty="There are no checks.")


@click.command()
@click.option(
    "--drain", multiple=True, type=HostName(), help="Suppose that this host drains; its jobs are placed anew."
)
@click.option("--weight", callback=counts, multiple=True, metavar="HOST=N", help="Suppose this weight.")
@click.option("--slots", callback=counts, multiple=True, metavar="HOST=N", help="Suppose so many slots.")
@click.option("--add", type=click.Path(path_type=Path), metavar="FILE", help="Suppose that the hosts of a file exist.")
@click.option("-f", "--file", "path", type=click.Path(path_type=Path), metavar="FILE", help="Jobs to place.")
@remote
async def plan(
    client: "AsyncClient", *, as_json: bool, drain: tuple[str, ...], weight: dict[str, int], slots: dict[str, int],
    add: Path | None, path: Path | None,
) -> int | None:  # fmt: skip
    """Show where jobs would go on a changed fleet. Nothing is changed.

    The jobs are those of --file, and those that a host of --drain holds now. Jobs that wait already come first.
    Exits with 1 when some job would get no host.
    """
    jobs, more = files.jobs(path, {}) if path else [], files.hosts(add) if add else None
    answer, names = await planned(client, drain, weight, slots, jobs, more)
    if as_json:
        output.as_json(answer)
    else:
        _show_plan(answer, names)
    return REFUSED if any(one["__typename"] != "Placement" for one in answer["placements"]) else None


async def planned(
    client: "AsyncClient",
    drain: Sequence[str],
    weights: Mapping[str, object],
    slots: Mapping[str, object],
    jobs: "Sequence[JobInput]",
    add: "list[HostInput] | None",
) -> tuple[dict[str, Any], list[str]]:
    """A plan as the API answers it, and the name of each placed job: first those of drained hosts, then `jobs`.

    Raises:
        NotFound: there is no host with one of the names.
    """
    from container_manager.client import HostAssumption

    drained = await find_hosts(client, tuple(drain))
    changes: dict[str, dict[str, Any]] = {host.id: {"is_draining": True} for host in drained}
    for field, values in (("routing_weight", weights), ("max_concurrent_jobs", slots)):
        for host in await find_hosts(client, tuple(values)):
            changes.setdefault(host.id, {})[field] = values[host.name]
    moved = [details for host in drained for details in await _held(client, host)]
    assumptions = [HostAssumption.model_validate({"host_id": host_id, **change}) for host_id, change in changes.items()]
    answer = (await client.api.plan([*map(_again, moved), *jobs], assumptions, add)).plan_routing.as_json()
    names = [f"{number_of(one.id)} {one.name or one.image}" for one in moved]
    return answer, [*names, *(one.name or one.image for one in jobs)]


async def _held(client: "AsyncClient", host: "HostFields") -> "list[JobDetails]":
    from container_manager.client import JobFilter

    held = []
    async for job in client.jobs(JobFilter.model_validate({"host_id": host.id, "status": HOLDING})):
        held.append(await job.details())
        if len(held) == MOST_MOVED:
            output.note(f"{host.name} holds more jobs; the newest {MOST_MOVED} are placed.")
            break
    return held


def _again(job: "JobDetails") -> "JobInput":
    """What routing looks at of a job that exists."""
    from container_manager.client import JobInput

    fields = (
        "image", "name", "memory_limit_mb", "cpu_limit", "timeout_seconds", "priority", "preferred_executor",
        "executor_required", "region_preference", "region_required", "strategy", "host_selector", "labels", "user",
        "network", "shm_size_mb",
    )  # fmt: skip
    given = {name: getattr(job, name) for name in fields}
    return JobInput.model_validate({name: value for name, value in given.items() if value not in (None, "", {})})


def _show_plan(answer: output.Row, names: list[str]) -> None:
    waiting = [{"job": f"{number_of(one['job']['id'])} {one['job']['name']}", **one} for one in answer["waiting"]]
    if answer["waitingPlaced"]:
        output.say(f"Of the jobs that wait, {answer['waitingPlaced']} would get a host:")
        output.table(waiting, [("JOB", "job"), ("HOST", "hostName")], empty="")
        click.echo()
    rows = [{"job": name, **one} for name, one in zip(names, answer["placements"], strict=True)]
    columns: list[output.Column] = [
        ("JOB", "job"),
        ("HOST", lambda row: row.get("hostName") or "none"),
        ("WHY", lambda row: row.get("reason") or row["message"]),
    ]
    output.table(
        rows, columns, empty="There is no other job to place: the hosts of --drain hold none, and --file gives jobs."
    )
    for row in rows:
        for suggestion in row.get("suggestions", []):
            output.say(f"  {row['job']} would run if: {suggestion['message']}")


@click.command()
@remote
async def queue(client: "AsyncClient", *, as_json: bool) -> None:
    """Show what waits, by what it waits for."""
    answer = (await client.api.queue()).queue.as_json()
    if as_json:
        output.as_json(answer)
        return
    output.say(f"Waiting: {answer['pending']}. Routed or running: {answer['active']}.")
    columns: list[output.Column] = [
        ("JOBS", "jobs"), ("CAN RUN", "verdict"), ("OLDEST", lambda group: output.age(group["oldestSubmittedAt"])),
        ("HOSTS FAIL", output.rejections),
    ]  # fmt: skip
    output.table(answer["groups"], columns, empty="Nothing waits for long.")
