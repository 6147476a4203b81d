"""The command `mcp`: the service as tools for agents, by the Model Context Protocol over the standard streams."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from container_manager.cli.remote.explaining import planned
from container_manager.cli.remote.names import changed_host, find_job
from container_manager.cli.remote.session import remote

if TYPE_CHECKING:
    from container_manager.client import AsyncClient

MOST_LINES, MOST_ROWS = 500, 200

INSTRUCTIONS = """\
container-manager decides on which host each container job runs, runs it there, and explains the decision.
To find out why a job is late, ask for `job` (waitingOn says why it waits, and which changes would help), then `why_not`
for a host that should take it, and `plan` for what a change would do.
Jobs are named by number, id or name, hosts by name."""
NO_MCP = "The MCP server is an extra: install container-manager[mcp]."


@click.command()
@click.option("--write", is_flag=True, help="With tools that change jobs, and drain and resume hosts.")
@remote
async def mcp(client: "AsyncClient", *, as_json: bool, write: bool) -> None:  # noqa: ARG001 - as all clients
    """Serve tools for agents over the standard streams (MCP): why is my job late, and what would help?

    It is read-only unless --write is given; what the token may not do, it may not do either.
    """
    try:
        from mcp.server import MCPServer
        from mcp.types import ToolAnnotations
    except ImportError as error:
        raise click.ClickException(NO_MCP) from error
    # A wrong address or token ends it here, where a person reads why.
    await client.api.viewer()
    server = MCPServer("container-manager", instructions=INSTRUCTIONS, log_level="WARNING")
    for kind, is_given in ((_Reading, True), (_Writing, write)):
        hints = ToolAnnotations(
            read_only_hint=kind.only_reads, destructive_hint=not kind.only_reads, open_world_hint=False
        )
        for name, tool in inspect.getmembers(kind(client), inspect.ismethod):
            if is_given and not name.startswith("_"):
                server.add_tool(_told(tool), annotations=hints)
    await server.run_stdio_async()


def _told(tool: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The tool, whose errors agents can read."""
    from mcp.server.mcpserver.exceptions import ToolError

    from container_manager.client import ClientError

    @functools.wraps(tool)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await tool(*args, **kwargs)
        except (ClientError, TypeError) as error:
            raise ToolError(str(error)) from error

    return call


class _Reading:
    """Tools that change nothing."""

    only_reads = True

    def __init__(self, client: "AsyncClient") -> None:
        self._client = client

    async def job(self, job: str) -> dict[str, Any]:
        """A job: its state, host, exit code, attempts, and while it waits, why and what would help."""
        return (await (await find_job(self._client, job)).details()).as_json()

    async def jobs(self, status: list[str] | None = None, name: str = "", last: int = 20) -> list[dict[str, Any]]:
        """The newest jobs. `status`: PENDING, ROUTED, LAUNCHING, RUNNING, SUCCEEDED, FAILED, TIMED_OUT, CANCELLED."""
        from container_manager.client import JobFilter

        given = {"status": status or None, "name_contains": name or None}
        wanted = JobFilter.model_validate({key: value for key, value in given.items() if value})
        found: list[dict[str, Any]] = []
        async for one in self._client.jobs(wanted):
            found.append(one.data.as_json())
            if len(found) >= min(last, MOST_ROWS):
                break
        return found

    async def explain(self, job: str) -> dict[str, Any]:
        """The newest decision about a job, with every check of every host."""
        explained = (await (await find_job(self._client, job)).explain()).as_json()
        return {**explained, "decisions": explained["decisions"][:1]}

    async def why_not(self, job: str, host: str) -> dict[str, Any]:
        """Why a host does not take a job: each check, with what is needed and what there is now."""
        return (await (await find_job(self._client, job)).why_not(host)).as_json()

    async def queue(self) -> dict[str, Any]:
        """What waits, grouped by what it waits for. NEVER: no host could take it. NOT_NOW: some host could, later."""
        return (await self._client.api.queue()).queue.as_json()

    async def hosts(self) -> list[dict[str, Any]]:
        """All hosts with health, state, free room and labels."""
        return [host.as_json() async for host in self._client.hosts()]

    async def logs(self, job: str, last: int = 100) -> list[str]:
        """The last lines that the ended attempts of a job have written."""
        found, after, lines = await find_job(self._client, job), None, list[str]()
        while True:
            stored = (await self._client.api.stored_logs(found.id, 1000, after)).job
            if stored is None:
                return lines
            lines = [*lines, *(edge.node.text for edge in stored.logs.edges)][-max(1, min(last, MOST_LINES)) :]
            if not stored.logs.page_info.has_next_page:
                return lines
            after = stored.logs.page_info.end_cursor

    async def plan(
        self,
        drain: list[str] | None = None,
        weights: dict[str, int] | None = None,
        slots: dict[str, int] | None = None,
        jobs: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Where jobs would go on a changed fleet; nothing is changed.

        `drain`: hosts that would take no new jobs, and whose jobs are placed anew. `weights`, `slots`: by host.
        `jobs`: jobs to place, with the fields of a submission, such as {"image": "x", "memory_limit_mb": 512}.
        """
        from container_manager.client import job_input

        wanted = [job_input(**fields) for fields in jobs or []]
        answer, names = await planned(self._client, drain or [], weights or {}, slots or {}, wanted, None)
        return {**answer, "jobs": names}

    async def events(self, job: str = "", host: str = "", last: int = 50) -> list[dict[str, Any]]:
        """What happened last, oldest first; about a job or a host if one is named."""
        from container_manager.client import RoutingEventFilter

        given: dict[str, Any] = {}
        if job:
            given["job_id"] = (await find_job(self._client, job)).id
        if host:
            given["host_id"] = (await self._client.host(host)).id
        filters = RoutingEventFilter.model_validate(given)
        edges = (await self._client.api.stored_events(min(last, 100), filters)).routing_events.edges
        return [edge.node.as_json() for edge in edges]


class _Writing:
    """Tools that change jobs and hosts."""

    only_reads = False

    def __init__(self, client: "AsyncClient") -> None:
        self._client = client

    async def submit(
        self, image: str, command: list[str] | None = None, options: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Submit a job. `options`: fields such as name, memory_limit_mb and environment, which is a mapping."""
        return (await self._client.submit(image, command or [], **(options or {}))).data.as_json()

    async def cancel(self, job: str) -> dict[str, Any]:
        """Cancel a job."""
        return (await (await find_job(self._client, job)).cancel()).data.as_json()

    async def retry(self, job: str) -> dict[str, Any]:
        """Let a job that has failed run again."""
        return (await (await find_job(self._client, job)).retry()).data.as_json()

    async def drain(self, host: str) -> dict[str, Any]:
        """Give a host no new jobs; it finishes those that it has."""
        return (await changed_host(self._client, host, "drain_host")).as_json()

    async def resume(self, host: str) -> dict[str, Any]:
        """Give a host jobs again."""
        return (await changed_host(self._client, host, "resume_host")).as_json()
