"""The command `audit`: shows the audit log."""

import click

from container_manager.cli.setup import setup


@click.command()
@click.option("--last", default=50, show_default=True, type=click.IntRange(1, 100_000), help="How many entries.")
def audit(last: int) -> None:
    """Show who changed what, when, from where and with what result; the newest last."""
    setup()
    from container_manager.service import tokens
    from container_manager.startup import check_database

    check_database()
    click.echo(f"{'AT':<20} {'WHO':<24} {'FROM':<16} {'ACTION':<16} {'RESULT':<16} ON")
    for entry in tokens.audit_log(last):
        where = entry.address or "-"
        what = f"{entry.target} ({entry.detail})" if entry.detail else entry.target
        click.echo(
            f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.actor:<24} {where:<16} {entry.action:<16} {entry.result:<16} {what}"
        )
