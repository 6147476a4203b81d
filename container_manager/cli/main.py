"""The command line."""

import sys

import click

from container_manager.cli.audit import audit
from container_manager.cli.check import check
from container_manager.cli.keys import keys
from container_manager.cli.remote import events, explaining, hosts, jobs, login, mcp
from container_manager.cli.serve import demo, serve
from container_manager.cli.token import token
from container_manager.environment import ConfigurationError
from container_manager.errors import UserError

PROGRAM = "container-manager"


class _Commands(click.Group):
    """Shows errors of the configuration and of users as one sentence, without a stack trace."""

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in (("Jobs, hosts and why (clients of a service)", OF_CLIENT), ("The service", OF_SERVICE)):
            with formatter.section(title):
                formatter.write_dl([(one.name or "", one.get_short_help_str(limit=78)) for one in commands])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (ConfigurationError, UserError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="container-manager")
def main() -> None:
    """Decides on which host each container job runs, runs it there, and explains the decision."""


OF_SERVICE = (serve, demo, token, keys, audit, check)
OF_CLIENT = (
    *(jobs.submit, jobs.jobs, jobs.job, jobs.logs, jobs.cancel, jobs.retry),
    *(explaining.explain, explaining.why_not, explaining.plan, explaining.queue),
    *(hosts.hosts, events.events, events.top, mcp.mcp),
    *(login.login, login.logout, login.contexts, login.completion),
)
for command in (*OF_SERVICE, *OF_CLIENT):
    main.add_command(command)

if __name__ == "__main__":
    sys.exit(main())
