"""The command `hosts` and those below it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from container_manager.cli.remote import files, output
from container_manager.cli.remote.names import HostName, accepted_host, changed_host
from container_manager.cli.remote.session import REFUSED, Command, confirm, each, pairs, remote

if TYPE_CHECKING:
    from container_manager.client import AsyncClient
    from container_manager.client.generated.fragments import HostFields


def _state(host: output.Row) -> str:
    if not host["isActive"]:
        return "inactive"
    if host["isDraining"]:
        return "empty" if host["emptySince"] else "draining"
    return "ejected" if host["ejectedUntil"] else "cooldown" if host["cooldownUntil"] else "active"


def _used(field: str, limit: str) -> Any:
    def used(host: output.Row) -> str:
        capacity = host["capacity"]
        most = capacity[limit]
        return f"{capacity[field]:g}/{'∞' if most is None else format(most, 'g')}"

    return used


SHOWN: list[output.Column] = [
    ("NAME", "name"),
    ("TYPE", "executorType"),
    ("REGION", "region"),
    ("HEALTH", "health.status"),
    ("STATE", _state),
    ("JOBS", _used("runningJobs", "maxConcurrentJobs")),
    ("MEMORY MB", _used("reservedMemoryMb", "maxMemoryMb")),
    ("CPU", _used("reservedCpuCores", "maxCpuCores")),
    ("WEIGHT", "routingWeight"),
    ("LABELS", output.labels),
]


@click.group(invoke_without_command=True)
@click.option("--health", type=click.Choice(("HEALTHY", "UNHEALTHY", "UNKNOWN"), case_sensitive=False))
@click.option("--region", help="In this region.")
@click.option("--label", "labels", multiple=True, callback=pairs, metavar="NAME=VALUE", help="With this label.")
@click.option("-o", "--output", "paths", metavar="COLUMNS", help="Fields to show, such as name,health.status.")
@remote
async def hosts(client: "AsyncClient", *, as_json: bool, paths: str | None, **filters: Any) -> None:
    """List the hosts, or change them with one of the commands below."""
    from container_manager.client import HostFilter

    wanted = HostFilter.model_validate({name: value for name, value in filters.items() if value})
    rows = [host.as_json() async for host in client.hosts(wanted)]
    if as_json:
        output.as_json(rows)
    else:
        columns = output.columns_of(paths, rows) if paths else SHOWN
        output.table(rows, columns, empty="There is no such host; `hosts create` makes one.")


def _described(command: Command) -> Command:
    """The options that describe a host."""
    options = [
        click.option("--url", help="Address of a Docker or Podman engine: unix://, tcp:// or https://."),
        click.option("--region", help="Its region."),
        click.option("--label", "labels", multiple=True, callback=pairs, metavar="NAME=VALUE", help="A label."),
        click.option("--weight", "routing_weight", type=int, help="0 to 1000: its share of the jobs."),
        click.option("--slots", "max_concurrent_jobs", type=int, help="The most jobs at the same time."),
        click.option("--memory", "max_memory_mb", type=int, metavar="MB", help="The most MiB that jobs hold."),
        click.option("--cpu", "max_cpu_cores", type=float, metavar="CORES", help="The most cores that jobs hold."),
        click.option("--config", metavar="JSON", help="Settings of its executor; see docs/engines.md."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _given(url: str | None, config: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    """The options as fields of a HostInput or a HostPatch."""
    given = {name: value for name, value in fields.items() if value not in (None, {})}
    if config is not None:
        try:
            given["config"] = json.loads(config)
        except ValueError as error:
            raise click.BadParameter(f"this is no JSON: {error}.", param_hint="--config") from error
        if not isinstance(given["config"], dict):
            raise click.BadParameter("this is no object.", param_hint="--config")
    if url is not None:
        given["config"] = {**given.get("config", {}), "url": url}
    return given


@hosts.command()
@click.argument("name")
@click.option(
    "--type",
    "executor_type",
    default="docker",
    show_default=True,
    help="docker (also Podman), cloudrun, simulated, or that of an installed package.",
)
@_described
@remote
async def create(client: "AsyncClient", *, as_json: bool, url: str | None, config: str | None, **fields: Any) -> None:
    """Create a host; it is probed before the answer."""
    host = files.host_input(_given(url, config, fields))
    _changed([accepted_host((await client.api.create_host(host)).create_host)], as_json=as_json)


@hosts.command()
@click.argument("host", type=HostName())
@click.option("--active/--inactive", "is_active", default=None, help="Whether jobs may be routed to it.")
@click.option("--rename", "name", help="Its new name.")
@_described
@remote
async def update(
    client: "AsyncClient", *, as_json: bool, host: str, url: str | None, config: str | None, **fields: Any
) -> None:
    """Change what is given of a host; a config is merged into the one that it has."""
    from container_manager.client import HostPatch

    patch = HostPatch.model_validate(_given(url, config, fields))
    found = await client.host(host)
    _changed([accepted_host((await client.api.update_host(found.id, patch)).update_host)], as_json=as_json)


@hosts.command()
@click.argument("hosts", type=HostName(), nargs=-1, required=True, metavar="HOST…")
@remote
async def drain(client: "AsyncClient", *, as_json: bool, hosts: tuple[str, ...]) -> int | None:
    """Give hosts no new jobs; they finish those that they have."""
    return await _change(client, hosts, "drain_host", as_json=as_json)


@hosts.command()
@click.argument("hosts", type=HostName(), nargs=-1, required=True, metavar="HOST…")
@remote
async def resume(client: "AsyncClient", *, as_json: bool, hosts: tuple[str, ...]) -> int | None:
    """Give hosts jobs again."""
    return await _change(client, hosts, "resume_host", as_json=as_json)


@hosts.command()
@click.argument("hosts", type=HostName(), nargs=-1, required=True, metavar="HOST…")
@remote
async def delete(client: "AsyncClient", *, as_json: bool, hosts: tuple[str, ...]) -> int | None:
    """Delete hosts that hold no jobs."""
    return await _change(client, hosts, "delete_host", as_json=as_json, verb="is deleted")


@hosts.command()
@click.argument("host", type=HostName())
@click.option("--yes", is_flag=True, help="Do not ask.")
@remote
async def lost(client: "AsyncClient", *, as_json: bool, host: str, yes: bool) -> None:
    """Declare that a host will not come back, so that its jobs run again elsewhere."""
    if not yes:
        running = (await client.host(host)).capacity.running_jobs
        question = f"{running} jobs of {host} run again elsewhere, and their output there is lost. Is it gone for good?"
        confirm(question)
    _changed([await changed_host(client, host, "declare_host_lost")], as_json=as_json)


@hosts.command()
@click.option("-f", "--file", "path", required=True, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@remote
async def apply(client: "AsyncClient", *, as_json: bool, path: Path, dry_run: bool, yes: bool) -> int | None:
    """Make the fleet what a file of YAML or JSON says; `hosts export` writes such a file.

    Shows what would change, and asks. Hosts that the file does not name stay as they are.
    """
    wanted = files.hosts(path)
    planned = [one.as_json() for one in (await client.api.apply_hosts(wanted, dry_run=True)).apply_hosts]
    changing = [one for one in planned if one["change"] in {"CREATED", "UPDATED"}]
    is_refused = any(one["change"] == "REFUSED" for one in planned)
    if dry_run or is_refused or not changing:
        _show_changes(planned, as_json=as_json, would=True)
        return REFUSED if is_refused else None
    if not yes:
        _show_changes(planned, as_json=False, would=True)
        confirm("Apply this?")
    done = [one.as_json() for one in (await client.api.apply_hosts(wanted, dry_run=False)).apply_hosts]
    _show_changes(done, as_json=as_json, would=False)
    return REFUSED if any(one["change"] == "REFUSED" for one in done) else None


@hosts.command()
@remote
async def export(client: "AsyncClient", *, as_json: bool) -> None:
    """Write the fleet as a file for `hosts apply`. Secrets are not in it; applying it keeps those that hosts have."""
    import yaml

    exported = [_exported(host) async for host in client.hosts()]
    if as_json:
        output.as_json({"hosts": exported})
    else:
        click.echo(yaml.safe_dump({"hosts": exported}, sort_keys=False, allow_unicode=True), nl=False)


def _exported(host: "HostFields") -> dict[str, Any]:
    shown = host.as_json()
    names = ("name", "executorType", "region", "labels", "routingWeight", "isActive")
    limits = {name: shown["capacity"][name] for name in ("maxConcurrentJobs", "maxMemoryMb", "maxCpuCores")}
    return {**{name: shown[name] for name in names}, **limits, "config": shown["config"]}


async def _change(
    client: "AsyncClient", names: tuple[str, ...], operation: str, *, as_json: bool, verb: str = ""
) -> int | None:
    """Change each host, and say so; see `each`."""
    done, code = await each(names, lambda name: changed_host(client, name, operation), as_json=as_json)
    _changed(done, as_json=as_json, verb=verb)
    return code


def _changed(done: "list[HostFields]", *, as_json: bool, verb: str = "") -> None:
    if as_json:
        output.as_json([host.as_json() for host in done])
        return
    for host in done:
        state = verb or f"is {_state(host.as_json())} and {host.health.status}"
        output.say(f"Host {host.name} {state}{f': {host.health.error}' if host.health.error and not verb else '.'}")


def _show_changes(planned: list[dict[str, Any]], *, as_json: bool, would: bool) -> None:
    if as_json:
        output.as_json(planned)
        return
    columns: list[output.Column] = [
        ("HOST", "name"),
        ("WOULD BE" if would else "IS", lambda one: one["change"]),
        ("CHANGES", lambda one: (one["result"] or {}).get("message") or one["difference"]),
    ]
    output.table(planned, columns, empty="The file names no host.")
