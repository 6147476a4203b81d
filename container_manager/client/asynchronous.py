"""The client for asyncio."""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self, TypeVar, Unpack

import httpx

from container_manager.client import errors
from container_manager.client.generated.client import Operations
from container_manager.client.generated.enums import HostOrder, JobOrder
from container_manager.client.generated.explain import ExplainJob
from container_manager.client.generated.fragments import EventFields, HostChecks, HostFields, JobDetails, JobFields
from container_manager.client.generated.input_types import HostFilter, JobFilter, JobInput, RoutingEventFilter
from container_manager.client.generated.live_logs import LiveLogsJobLogs
from container_manager.client.options import JobOptions, job_input, submitted_once

T = TypeVar("T")
PAGE = 100
TERMINAL = frozenset({"SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELLED"})


def accepted(result: Any, kind: type[T]) -> T:
    """The result of a mutation.

    Raises:
        Refused: the result is one of its union's errors.
    """
    if isinstance(result, kind):
        return result
    raise errors.of_result(result)


def found(value: T | None, what: str) -> T:
    """A value that is not None.

    Raises:
        NotFound: it is.
    """
    if value is None:
        raise errors.NotFound(f"There is no {what}.")
    return value


class AsyncClient:
    """A service, for asyncio. What it has no verb for, it has as an operation of the API: `await client.api.queue()`.

    Use it with `async with`, or call `aclose()` at the end.

    Args:
        url: the address of the service, as its `ready` line shows it.
        token: an API token; None for a service that runs with --no-auth.
        patience: seconds for which a service that does not answer is tried again, where that is safe: queries,
            submissions and streams.
        http: a client of httpx to use instead of one that is made, and closed, here.
    """

    def __init__(
        self, url: str, token: str | None = None, *, patience: float = 60.0, http: httpx.AsyncClient | None = None
    ) -> None:
        self.api = Operations(url, token, patience, http)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.api.aclose()

    async def execute(self, document: str, variables: Mapping[str, object] | None = None) -> dict[str, Any]:
        """The data that the API answers to a document of one's own.

        Raises:
            ClientError: it answers with errors; the first is raised.
        """
        return self.api.get_data(await self.api.execute(document, variables=variables))

    async def submit(
        self, image: str | JobInput, command: Sequence[str] = (), **options: Unpack[JobOptions]
    ) -> "AsyncJob":
        """Submit a job: an image with a command and options, or a finished JobInput.

        It may be sent several times while the service does not answer, and is submitted once all the same: without an
        `idempotency_key` it gets one.

        Raises:
            ValidationFailed: a field has no good value.
            Conflict: another job was submitted with the `idempotency_key`.
            TypeError: there is no such option.
        """
        job = image if isinstance(image, JobInput) else job_input(image, command, **options)
        answer = await self.api.submit_job(submitted_once(job), repeatable=True)
        return AsyncJob(self, accepted(answer.submit_job, JobFields))

    async def submit_all(self, jobs: Iterable[JobInput]) -> "list[AsyncJob | errors.Refused]":
        """Submit up to 10,000 jobs in one transaction; each gives its job or the error for which it was refused."""
        answer = await self.api.submit_jobs([submitted_once(job) for job in jobs], repeatable=True)
        return [
            AsyncJob(self, one) if isinstance(one, JobFields) else errors.of_result(one) for one in answer.submit_jobs
        ]

    async def job(self, job_id: str) -> "AsyncJob":
        """The job with this id.

        Raises:
            NotFound: there is none.
        """
        return AsyncJob(self, found((await self.api.job_state(job_id)).job, "such job"))

    async def jobs(
        self, filters: JobFilter | None = None, order_by: JobOrder = JobOrder.SUBMITTED_DESC
    ) -> AsyncGenerator["AsyncJob", None]:
        """All jobs that match, page by page."""
        after = None
        while True:
            page = (await self.api.jobs(order_by, PAGE, filters, after)).jobs
            for edge in page.edges:
                yield AsyncJob(self, edge.node)
            if not page.page_info.has_next_page:
                return
            after = page.page_info.end_cursor

    async def hosts(
        self, filters: HostFilter | None = None, order_by: HostOrder = HostOrder.NAME
    ) -> AsyncGenerator[HostFields, None]:
        """All hosts that match, page by page."""
        after = None
        while True:
            page = (await self.api.hosts(order_by, PAGE, filters, after)).hosts
            for edge in page.edges:
                yield edge.node
            if not page.page_info.has_next_page:
                return
            after = page.page_info.end_cursor

    async def host(self, name: str) -> HostFields:
        """The host with this name.

        Raises:
            NotFound: there is none.
        """
        return found((await self.api.host(name)).host, f"host {name!r}")

    async def events(
        self, after: str | None = None, filters: RoutingEventFilter | None = None
    ) -> AsyncGenerator[EventFields, None]:
        """Events as they happen, for ever: each once and in order, also when the connection is lost in between.

        Args:
            after: the `cursor` of the last event that is known; "0" for all that are kept, None for those from now on.
            filters: which events are wanted.

        Raises:
            CursorExpired: events after the cursor were deleted.
            Unreachable: the service did not answer for `patience` seconds.
        """
        # An event between the connection and a loss of it would be missed without a cursor to go on from.
        begin = after if after is not None else (await self.api.event_cursor()).event_cursor

        async def opened(cursor: str | None) -> AsyncGenerator[EventFields, None]:
            async with aclosing(self.api.events(cursor, filters)) as values:
                async for value in values:
                    yield value.routing_events

        async with aclosing(self.api.resumed(opened, begin, endless=True)) as events:
            async for event in events:
                yield event


class AsyncJob:
    """A job. `data` is its state as it was read last; `refresh` reads it again."""

    def __init__(self, client: AsyncClient, data: JobFields) -> None:
        self._client = client
        self.data = data

    def __repr__(self) -> str:
        return f"<AsyncJob {self.data.name or self.data.image} {self.data.status}>"

    @property
    def id(self) -> str:
        """The global id."""
        return self.data.id

    @property
    def status(self) -> str:
        """The state, as it was read last."""
        return self.data.status

    @property
    def has_ended(self) -> bool:
        """Whether the state is terminal, as it was read last."""
        return self.data.status in TERMINAL

    async def refresh(self) -> Self:
        """Read the state again.

        Raises:
            NotFound: the job was deleted.
        """
        self.data = found((await self._client.api.job_state(self.id)).job, "such job; it was deleted")
        return self

    async def details(self) -> JobDetails:
        """Everything about the job: what it was submitted with, and its attempts."""
        return found((await self._client.api.job(self.id)).job, "such job; it was deleted")

    async def result(self, *, check: bool = True) -> JobFields:
        """Wait for the end of the job, through all its attempts, and return its last state.

        Raises:
            JobFailed: it has not succeeded, unless `check` is False.
            Unreachable: the service did not answer for `patience` seconds.
        """
        while True:
            # The cursor first: an end that the state does not show yet is an event after it.
            after = (await self._client.api.event_cursor()).event_cursor
            await self.refresh()
            if self.has_ended:
                break
            async with aclosing(self.events(after)) as events:
                async for event in events:
                    if event.job is None or event.job.status in TERMINAL:
                        break
        if check and self.data.status != "SUCCEEDED":
            raise errors.JobFailed(self.data)
        return self.data

    async def logs(self, after: str | None = None) -> AsyncGenerator[LiveLogsJobLogs, None]:
        """The lines that the job writes, from PENDING to its end: each once and in order, also through a disconnect.

        Args:
            after: the `cursor` of the last line that is known; None for all.
        """

        async def opened(cursor: str | None) -> AsyncGenerator[LiveLogsJobLogs, None]:
            async with aclosing(self._client.api.live_logs(self.id, cursor)) as values:
                async for value in values:
                    yield value.job_logs

        async with aclosing(self._client.api.resumed(opened, after, endless=False)) as lines:
            async for line in lines:
                yield line

    async def events(self, after: str | None = None) -> AsyncGenerator[EventFields, None]:
        """Events about the job, as `AsyncClient.events` has them."""
        async with aclosing(self._client.events(after, RoutingEventFilter(job_id=self.id))) as events:
            async for event in events:
                yield event

    async def cancel(self) -> Self:
        """Cancel the job; `result` tells when its container is gone.

        Raises:
            Conflict: it has ended.
        """
        self.data = accepted((await self._client.api.cancel_job(self.id)).cancel_job, JobFields)
        return self

    async def retry(self) -> Self:
        """Let a job that has ended run again, as its next attempt.

        Raises:
            Conflict: it has not ended, or has succeeded.
        """
        self.data = accepted((await self._client.api.retry_job(self.id)).retry_job, JobFields)
        return self

    async def explain(self, hosts: int = 50) -> ExplainJob:
        """Why it runs where it does, or waits: its decisions, newest first, with the checks of up to `hosts` hosts."""
        return found((await self._client.api.explain(self.id, hosts)).job, "such job; it was deleted")

    async def why_not(self, host: str) -> HostChecks:
        """The checks of the host with this name for this job, as it is now.

        Raises:
            NotFound: there is no such host.
        """
        on = await self._client.host(host)
        return found((await self._client.api.why_not(self.id, on.id)).why_not, "answer")
