"""The commands about secret keys."""

import click

from container_manager.cli.setup import setup


@click.group()
def keys() -> None:
    """Change the secret key."""


@keys.command()
def rotate() -> None:
    """Encrypt everything again with the first of CONTAINER_MANAGER_SECRET_KEY, while the service runs.

    Before it, start all processes with the new key first and the old one after it.
    """
    setup()
    from container_manager.crypto import WrongKeyError
    from container_manager.environment import ConfigurationError
    from container_manager.service.tokens import COMMAND_LINE
    from container_manager.startup import check_database
    from container_manager.store import keys as key_store

    check_database()
    try:
        count = key_store.rotate(COMMAND_LINE)
    except WrongKeyError as error:
        raise ConfigurationError(f"{error}; give that key as well.") from error
    click.echo(
        f"{count} values were encrypted again, and all are encrypted with the first key.\n"
        "The others may go once every process was started with it first. The idempotency keys of jobs are known as\n"
        "long as the key is given under which the jobs were submitted."
    )
