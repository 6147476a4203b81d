"""The commands about API tokens."""

from datetime import timedelta

import click

from container_manager.cli.setup import setup

LONGEST_NAME = 100
ROLES = ("viewer", "operator", "admin")


def _valid_name(_: click.Context, __: click.Parameter, value: str) -> str:
    if not 0 < len(value) <= LONGEST_NAME or not value.isprintable():
        raise click.BadParameter(f"must have 1 to {LONGEST_NAME} printable characters.")
    return value


@click.group()
def token() -> None:
    """Create, list and revoke API tokens."""


@token.command()
@click.option("--name", required=True, callback=_valid_name, help="The name of its holder in the audit log.")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    required=True,
    help="viewer reads; operator also changes jobs; admin also hosts.",
)
@click.option(
    "--expires", type=click.IntRange(1, 36_500), metavar="DAYS", help="Days until it expires; never when not given."
)
def create(name: str, role: str, expires: int | None) -> None:
    """Create a token and print its secret, which is shown only once."""
    setup()
    from container_manager.service import tokens
    from container_manager.startup import migrate

    migrate()
    click.echo(tokens.create(name, role, timedelta(days=expires) if expires else None))


@token.command("list")
def list_() -> None:
    """Show all tokens, without their secrets."""
    setup()
    from container_manager.service import tokens
    from container_manager.startup import check_database

    check_database()
    click.echo(f"{'NAME':<24} {'ROLE':<10} {'EXPIRES':<17} LAST USED")
    for entry in tokens.listed():
        expires = f"{entry.expires_at:%Y-%m-%d %H:%M}" if entry.expires_at else "never"
        used = f"{entry.last_used_at:%Y-%m-%d %H:%M}" if entry.last_used_at else "never"
        click.echo(f"{entry.name:<24} {entry.role:<10} {expires:<17} {used}")


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke a token: it is refused from now on."""
    setup()
    from container_manager.service import tokens
    from container_manager.startup import check_database

    check_database()
    tokens.revoke(name)
    click.echo(f"Token {name!r} is revoked.")
