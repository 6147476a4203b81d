"""The command `check`: says what is wrong with the configuration and the hosts."""

import asyncio
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from container_manager.cli.setup import setup

if TYPE_CHECKING:
    from container_manager.models import ExecutorHost


@click.command()
def check() -> None:
    """Read the configuration and probe each host; exits with 1 when something is wrong."""
    setup()
    from container_manager import configuration
    from container_manager.database import connection
    from container_manager.startup import check_database

    check_database()
    environment = configuration.current()
    click.echo(f"Configuration: node {environment.node}, database {connection.settings_dict['NAME']}.")
    sys.exit(1 if asyncio.run(_has_problems()) else 0)


async def _has_problems() -> bool:
    from container_manager.service import probe_all_hosts

    probed = await probe_all_hosts()
    if not probed:
        click.echo("There is no host yet: create one with `container-manager hosts create`.")
        return True
    for host, report in probed:
        if report is None:
            where = f"Host {host.name} ({host.executor_type}) belongs to node {host.node}, not to this one"
            click.echo(f"{where}: {_told_by_its_node(host) or 'its workers say that it is healthy.'}")
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
    return any(
        host.launch_error or (not report.healthy if report else _told_by_its_node(host)) for host, report in probed
    )


def _told_by_its_node(host: "ExecutorHost") -> str:
    """What is wrong with a host that only another node reaches, from its last probe; "" when nothing is."""
    from container_manager import configuration
    from container_manager.store.health import oldest_fresh, unprobed

    interval = timedelta(seconds=configuration.current().probe_interval_seconds)
    if host.last_health_check is None or host.last_health_check < oldest_fresh(interval):
        return unprobed(host.node)
    return "" if host.health_status == "healthy" else host.health_error or f"it is {host.health_status}."
