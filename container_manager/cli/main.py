"""The command line."""

import os
import sys

import click

from container_manager.environment import ConfigurationError
from container_manager.errors import UserError


class _Sentences(click.Group):
    """Tells what is wrong in one sentence, without a trace."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (ConfigurationError, UserError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="container-manager")
def main() -> None:
    """Decides on which host each container job runs, runs it there, and explains it."""


def setup() -> None:
    """Load Django; its settings read the environment.

    Raises:
        ConfigurationError: the environment is wrong; the message says where.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "container_manager.settings")
    import django

    django.setup()


def _register() -> None:
    from container_manager.cli.check import check
    from container_manager.cli.serve import demo, serve
    from container_manager.cli.token import token

    for command in (serve, demo, token, check):
        main.add_command(command)


_register()

if __name__ == "__main__":
    sys.exit(main())
