"""Jobs and hosts as people name them, and their completion in shells."""

import asyncio
import base64
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from container_manager.cli.remote import contexts
from container_manager.cli.remote.session import PLACE

if TYPE_CHECKING:
    from container_manager.client import AsyncClient, AsyncJob
    from container_manager.client.generated.fragments import HostFields

    _Name = click.ParamType[str]
else:
    _Name = click.ParamType  # not generic in earlier versions of click

COMPLETION_SECONDS = 2.0
MOST_COMPLETIONS = 50


def number_of(global_id: str) -> str:
    """The number in a global id, which is shorter for people."""
    with suppress(ValueError):
        _, _, number = base64.b64decode(global_id, validate=True).decode().partition(":")
        return number or global_id
    return global_id


def job_id(number: str) -> str:
    """The global id of the job with a number."""
    return base64.b64encode(f"ContainerJob:{number}".encode()).decode()


async def find_job(client: "AsyncClient", text: str) -> "AsyncJob":
    """The job with this number or id, or the newest with this name.

    Raises:
        NotFound: there is none.
    """
    from container_manager.client import JobFilter, NotFound

    with suppress(NotFound):
        if text.isdecimal():
            return await client.job(job_id(text))
        if number_of(text) != text:
            return await client.job(text)
    async for job in client.jobs(JobFilter(name=text)):
        return job
    raise NotFound(f"There is no job with the number, id or name {text!r}.")


async def find_hosts(client: "AsyncClient", names: tuple[str, ...]) -> "list[HostFields]":
    """The hosts with these names.

    Raises:
        NotFound: there is no host with one of the names.
    """
    return [await client.host(name) for name in names]


def accepted_host(result: Any) -> "HostFields":
    """The host that a mutation answers.

    Raises:
        Refused: it answers one of its errors.
    """
    from container_manager.client.asynchronous import accepted
    from container_manager.client.generated.fragments import HostFields

    return accepted(result, HostFields)


async def changed_host(client: "AsyncClient", name: str, operation: str) -> "HostFields":
    """The host with this name after an operation of the API that takes only its id, such as `drain_host`.

    Raises:
        Refused: there is no such host, or it does not allow it.
    """
    answer = await getattr(client.api, operation)((await client.host(name)).id)
    return accepted_host(getattr(answer, operation))


class JobName(_Name):
    """A job's number, id or name; completed from the newest jobs."""

    name = "job"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002
        async def newest(client: "AsyncClient") -> list[tuple[str, str]]:
            jobs = (await client.api.jobs(_newest_first(), MOST_COMPLETIONS, None, None)).jobs.edges
            return [
                (number_of(edge.node.id), f"{edge.node.name or edge.node.image} {edge.node.status}") for edge in jobs
            ]

        found = _completed(ctx, newest)
        return [CompletionItem(value, help=text) for value, text in found if value.startswith(incomplete)]


class HostName(_Name):
    """A host's name; completed from the fleet."""

    name = "host"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002
        async def of_fleet(client: "AsyncClient") -> list[tuple[str, str]]:
            from container_manager.client import HostFilter

            return [(one.name, one.region) async for one in client.hosts(HostFilter(name_contains=incomplete or None))]

        found = _completed(ctx, of_fleet)
        return [CompletionItem(value, help=text) for value, text in found if value.startswith(incomplete)]


def _newest_first() -> Any:
    from container_manager.client import JobOrder

    return JobOrder.SUBMITTED_DESC


def _completed(
    ctx: click.Context, ask: "Callable[[AsyncClient], Coroutine[Any, Any, list[tuple[str, str]]]]"
) -> list[tuple[str, str]]:
    """What the server knows, or nothing: completion must never fail or take long."""

    async def asked() -> list[tuple[str, str]]:
        from container_manager.client import AsyncClient

        at = contexts.chosen(*(ctx.params.get(option) for option in PLACE))
        async with asyncio.timeout(COMPLETION_SECONDS), AsyncClient(at.server, at.token or None, patience=0) as client:
            return await ask(client)

    try:
        return asyncio.run(asked())
    except Exception:  # noqa: BLE001 - a shell has no place for an error
        return []
