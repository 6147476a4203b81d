"""The command line."""

import sys

import click

from container_manager.cli.audit import audit
from container_manager.cli.check import check
from container_manager.cli.keys import keys
from container_manager.cli.serve import demo, serve
from container_manager.cli.token import token
from container_manager.environment import ConfigurationError
from container_manager.errors import UserError


class _Commands(click.Group):
    """Shows errors of the configuration and of users as one sentence, without a stack trace."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (ConfigurationError, UserError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="container-manager")
def main() -> None:
    """Decides on which host each container job runs, runs it there, and explains the decision."""


for command in (serve, demo, token, keys, audit, check):
    main.add_command(command)

if __name__ == "__main__":
    sys.exit(main())
