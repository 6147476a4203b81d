"""What the client's commands share: their options, the connection, and how errors become exit codes."""

import asyncio
import functools
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import click

from container_manager.cli.remote import contexts, output

DONE, REFUSED, USAGE, NOT_FOUND, UNREACHABLE, NOT_ALLOWED = range(6)
TIMED_OUT, NO_EXIT_CODE, INTERRUPTED = 124, 125, 130
"""Of jobs without an exit code of their own, as `timeout`, `docker run` and shells have them."""

FOLLOWING_PATIENCE = 600.0
"""Seconds for which a command that follows something waits for a service that is away."""

PLACE = ("server", "token", "context")
"""The options that say which service is meant."""

T = TypeVar("T")
Command = Callable[..., Any]


def remote(command: Callable[..., Coroutine[Any, Any, int | None]]) -> Command:
    """A command that gets a client as its first argument, and may return an exit code."""

    @click.option("--server", help="Address of the service; or CONTAINER_MANAGER_URL.")
    @click.option("--token", help="API token; or CONTAINER_MANAGER_TOKEN, which hides it.")
    @click.option("--context", help="A server kept by `login`; or CONTAINER_MANAGER_CONTEXT.")
    @click.option("--json", "as_json", is_flag=True, help="For programs: the API's objects as JSON.")
    @functools.wraps(command)
    def run(*, as_json: bool, **arguments: Any) -> None:
        context = click.get_current_context()
        if context.invoked_subcommand is not None:
            return
        place = {option: arguments.pop(option) or _of_group(context, option) for option in PLACE}
        as_json = as_json or bool(_of_group(context, "as_json"))

        async def with_client() -> int | None:
            from container_manager.client import AsyncClient

            at = contexts.chosen(**place)
            async with AsyncClient(at.server, at.token or None, patience=0) as client:
                return await command(client, as_json=as_json, **arguments)

        sys.exit(reported(with_client, as_json=as_json))

    return run


def _of_group(context: click.Context, option: str) -> Any:
    """An option of `hosts`, given before the name of a command below it."""
    return context.parent.params.get(option) if context.parent is not None else None


def reported(work: Callable[[], Coroutine[Any, Any, int | None]], *, as_json: bool = False) -> int:
    """Run it; returns the exit code. Errors of the client are printed, in JSON if that is asked for."""
    from container_manager.client import ClientError

    try:
        return asyncio.run(work()) or DONE
    except ClientError as error:
        return refused(error, as_json=as_json)
    except KeyboardInterrupt:
        return INTERRUPTED


def confirm(question: str) -> None:
    """Ask, and end the command unless the answer is yes.

    Ctrl-C at the question ends it, too: asyncio would only cancel the task, which waits for the answer.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


async def each(
    names: Sequence[str], change: Callable[[str], Awaitable[T]], *, as_json: bool
) -> tuple[list[T], int | None]:
    """Change several things by their names; one that is refused, and told, keeps none of the others up.

    Returns those that were changed, and the exit code of the first refusal.
    """
    from container_manager.client import Refused

    done: list[T] = []
    codes: list[int] = []
    for name in names:
        try:
            done.append(await change(name))
        except Refused as error:
            codes.append(refused(error, as_json=as_json, about=name if len(names) > 1 else ""))
    return done, codes[0] if codes else None


def refused(error: Exception, *, as_json: bool, about: str = "") -> int:
    """Print an error of the client; returns its exit code. `about`: what it is about, if there are several."""
    code, kind, advice = _explained(error)
    if as_json:
        fields = [{"field": one.field, "reason": one.reason} for one in getattr(error, "fields", ())]
        told = {"code": kind, "message": str(error), "fields": fields, **({"about": about} if about else {})}
        click.echo(json.dumps({"error": told}), err=True)
    else:
        output.say(f"Error: {f'{about}: ' if about else ''}{error}{f' {advice}' if advice else ''}", err=True)
    return code


def _explained(error: Exception) -> tuple[int, str, str]:
    """The exit code, the name of the error for programs, and what to do about it."""
    from container_manager import client

    table: list[tuple[type[Exception], int, str, str]] = [
        (client.NotFound, NOT_FOUND, "NOT_FOUND", ""),
        (client.ValidationFailed, REFUSED, "VALIDATION_FAILED", ""),
        (client.Conflict, REFUSED, "CONFLICT", ""),
        (
            client.Unreachable, UNREACHABLE, "UNREACHABLE",
            "Is it running there? --server or `login` name another address.",
        ),
        (
            client.Unauthenticated, NOT_ALLOWED, "UNAUTHENTICATED",
            "Give it with --token or CONTAINER_MANAGER_TOKEN, or keep it with `container-manager login`.",
        ),
        (client.Forbidden, NOT_ALLOWED, "FORBIDDEN", ""),
    ]  # fmt: skip
    for kind, code, name, advice in table:
        if isinstance(error, kind):
            return code, name, advice
    return REFUSED, getattr(error, "code", "") or "REFUSED", ""


def counts(context: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """A callback of click: NAME=NUMBER options as a dictionary."""
    given = pairs(context, param, values)
    for name, value in given.items():
        if not value.isdecimal():
            raise click.BadParameter(f"{name}={value} must have a number.", param=param)
    return {name: int(value) for name, value in given.items()}


def pairs(_: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """A callback of click: NAME=VALUE options as a dictionary."""
    wrong = next((value for value in values if not value.partition("=")[0] or "=" not in value), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r} is not NAME=VALUE.", param=param)
    return dict(value.split("=", 1) for value in values)
