"""The commands about servers and shells: login, logout, contexts, completion."""

import sys
from contextlib import suppress

import click

from container_manager.cli.remote import output
from container_manager.cli.remote.contexts import DEFAULT_SERVER, Context, Contexts
from container_manager.cli.remote.session import reported

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("server", default=DEFAULT_SERVER)
@click.option("--token", help="API token; it is asked for, or read from the standard input, when it is not given.")
@click.option("--context", "name", default="default", show_default=True, help="A name for this server.")
def login(server: str, token: str | None, name: str) -> None:
    """Keep a server and a token, and use them from now on."""
    if token is None and sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, default="", show_default=False, err=True)
    elif token is None:
        token = sys.stdin.readline()
    context = Context(server.rstrip("/"), token.strip())

    async def check() -> None:
        from container_manager.client import AsyncClient

        async with AsyncClient(context.server, context.token, patience=0) as client:
            viewer = (await client.api.viewer()).viewer
            click.echo(f"Logged in to {context.server} as {viewer.name} ({viewer.role}).")

    if code := reported(check):
        sys.exit(code)
    contexts = Contexts.load()
    contexts.contexts[name] = context
    contexts.current = name
    contexts.save()


@click.command()
@click.argument("name", required=False)
def logout(name: str | None) -> None:
    """Forget a server and its token; the one in use when none is named."""
    contexts = Contexts.load()
    gone = name or contexts.current
    contexts.get(gone)
    del contexts.contexts[gone]
    if contexts.current == gone:
        contexts.current = ""
    contexts.save()
    click.echo(f"The context {gone} was removed.")


@click.command()
@click.argument("name", required=False)
def contexts(name: str | None) -> None:
    """List the servers that `login` has kept, or use the one with a name from now on."""
    kept = Contexts.load()
    if name is not None:
        kept.get(name)
        kept.current = name
        kept.save()
    rows = [{"name": key, "server": one.server, "used": key == kept.current} for key, one in kept.contexts.items()]
    columns: list[output.Column] = [
        ("", lambda row: "*" if row["used"] else ""),
        ("NAME", "name"),
        ("SERVER", "server"),
    ]
    output.table(rows, columns, empty="There is no context; `login` makes one.")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that completes commands, options, jobs and hosts.

    bash: eval "$(container-manager completion bash)" in ~/.bashrc; the same for zsh in ~/.zshrc;
    fish: container-manager completion fish > ~/.config/fish/completions/container-manager.fish
    """
    from click.shell_completion import get_completion_class

    from container_manager.cli.main import PROGRAM, main

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has these three
    with suppress(BrokenPipeError):
        click.echo(kind(main, {}, PROGRAM, "_CONTAINER_MANAGER_COMPLETE").source())
