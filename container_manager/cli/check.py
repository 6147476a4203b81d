"""Says what is wrong with the configuration and the hosts."""

import asyncio
import sys

import click

from container_manager.cli.setup import setup


@click.command()
def check() -> None:
    """Read the configuration and probe each host; exits with 1 when something is wrong."""
    setup()
    from django.conf import settings

    from container_manager.startup import migrate

    migrate()
    environment = settings.CONTAINER_MANAGER
    click.echo(f"Configuration: node {environment.node}, database {settings.DATABASES['default']['NAME']}.")
    problems = asyncio.run(_probe(environment.node))
    sys.exit(1 if problems else 0)


async def _probe(node: str) -> int:
    from django.db.models import Q

    from container_manager.executors.factory import ExecutorFactory
    from container_manager.store import hosts, threads
    from container_manager.store.installation import identify

    factory = ExecutorFactory(instance=await threads.read(identify))
    known = await threads.read(hosts.bare, Q())
    if not known:
        click.echo("There is no host yet: create one with the mutation createHost.")
        return 1
    mine = [host for host in known if host.node in {"", node}]
    reports = await factory.check_health(mine)
    await factory.aclose()
    for host in known:
        report = reports.get(host.pk)
        if report is None:
            click.echo(f"Host {host.name} ({host.executor_type}) belongs to node {host.node}; it is checked there.")
        elif report.exhausted:
            click.echo(f"Host {host.name} ({host.executor_type}) is healthy, but takes no jobs now: {report.exhausted}")
        elif report.healthy:
            click.echo(
                f"Host {host.name} ({host.executor_type}) is healthy; it answered in {report.latency_ms:.0f} ms."
            )
        else:
            click.echo(f"Host {host.name} ({host.executor_type}) is not healthy: {report.error}")
        if host.launch_error:
            click.echo(f"Host {host.name} ({host.executor_type}) has refused its last launches: {host.launch_error}")
    return sum(not reports[host.pk].healthy or bool(host.launch_error) for host in mine)
