"""The service's own commands, with the settings of the project."""

from typing import Any

from django.core.management import BaseCommand


class Command(BaseCommand):
    """manage.py container_manager COMMAND: what `container-manager COMMAND` does elsewhere."""

    help = "Run a command of container-manager, such as `token create --name me --role admin` or `serve`."

    def run_from_argv(self, argv: list[str]) -> None:
        # The arguments are click's, with options that Django's parser would take for its own.
        from container_manager.cli.main import main  # noqa: PLC0415

        main(argv[2:], prog_name=" ".join(argv[:2]))

    def handle(self, *arguments: str, **_: Any) -> None:
        """The same for `call_command`."""
        from container_manager.cli.main import main  # noqa: PLC0415

        main(list(arguments), standalone_mode=False)
