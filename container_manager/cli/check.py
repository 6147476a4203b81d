"""The command `check`: says what is wrong with the configuration and the hosts."""

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
    sys.exit(1 if asyncio.run(_has_problems()) else 0)


async def _has_problems() -> bool:
    from container_manager.service import probe_all_hosts

    probed = await probe_all_hosts()
    if not probed:
        click.echo("There is no host yet: create one with the mutation createHost.")
        return True
    for host, report in probed:
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
    return any(report and (not report.healthy or host.launch_error) for host, report in probed)
