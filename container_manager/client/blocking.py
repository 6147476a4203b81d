"""The client for code without an event loop: scripts, Django views, notebooks.

Everything is done by an AsyncClient on an event loop in a thread of its own, so there is one implementation.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import httpx

from container_manager.client.asynchronous import AsyncClient, AsyncJob
from container_manager.client.errors import Refused
from container_manager.client.generated.client import Operations
from container_manager.client.generated.enums import HostOrder, JobOrder
from container_manager.client.generated.explain import ExplainJob
from container_manager.client.generated.fragments import EventFields, HostChecks, HostFields, JobDetails, JobFields
from container_manager.client.generated.input_types import HostFilter, JobFilter, JobInput, RoutingEventFilter
from container_manager.client.generated.live_logs import LiveLogsJobLogs
from container_manager.client.options import JobOptions

T = TypeVar("T")
CLOSING_STEPS, CLOSING_PAUSE = 100, 0.01


class _Loop:
    """An event loop in a thread, started when it is first needed. It does not keep the program from ending."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._pid = 0

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            # A process that was forked has the loop, but not its thread.
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), daemon=True)
                self._thread.start()
            return self._loop

    def run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        future = asyncio.run_coroutine_threadsafe(function(), self._started())
        try:
            return future.result()
        except BaseException:
            # Of the future itself, or an interruption of this thread: then its work must end, too.
            future.cancel()
            raise

    def iterate(self, values: AsyncGenerator[T, None]) -> Iterator[T]:
        async def next_value() -> tuple[T] | None:
            try:
                return (await anext(values),)
            except StopAsyncIteration:
                return None

        try:
            while (value := self.run(next_value)) is not None:
                yield value[0]
        finally:
            if self._loop is not None:
                self.run(lambda: _closed(values))

    def stop(self) -> None:
        if self._loop is not None:
            self.run(_end_everything)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None
            self._thread.join()


async def _closed(values: AsyncGenerator[Any, None]) -> None:
    """Close an iteration whose last step may have been cancelled a moment ago."""
    for _ in range(CLOSING_STEPS):
        try:
            await values.aclose()
        except RuntimeError:
            await asyncio.sleep(CLOSING_PAUSE)
        else:
            return


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def _end_everything() -> None:
    """End what iterations that were not read to their end have begun."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


class Client:
    """A service, for code that blocks. The arguments, verbs and errors are those of `AsyncClient`.

    Use it with `with`, or call `close()` at the end.
    """

    def __init__(
        self, url: str, token: str | None = None, *, patience: float = 60.0, http: httpx.AsyncClient | None = None
    ) -> None:
        self._loop = _Loop()
        self._client = AsyncClient(url, token, patience=patience, http=http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and end the thread."""
        self._loop.run(self._client.aclose)
        self._loop.stop()

    def call(self, operation: Callable[[Operations], Coroutine[Any, Any, T]]) -> T:
        """An operation of the API that has no verb: `client.call(lambda api: api.queue())`."""
        return self._loop.run(lambda: operation(self._client.api))

    def execute(self, document: str, variables: Mapping[str, object] | None = None) -> dict[str, Any]:
        """See `AsyncClient.execute`."""
        return self._loop.run(lambda: self._client.execute(document, variables))

    def submit(self, image: str | JobInput, command: Sequence[str] = (), **options: Unpack[JobOptions]) -> "Job":
        """See `AsyncClient.submit`."""
        return Job(self._loop, self._loop.run(lambda: self._client.submit(image, command, **options)))

    def submit_all(self, jobs: Iterable[JobInput]) -> "list[Job | Refused]":
        """See `AsyncClient.submit_all`."""
        done = self._loop.run(lambda: self._client.submit_all(jobs))
        return [Job(self._loop, one) if isinstance(one, AsyncJob) else one for one in done]

    def job(self, job_id: str) -> "Job":
        """See `AsyncClient.job`."""
        return Job(self._loop, self._loop.run(lambda: self._client.job(job_id)))

    def jobs(self, filters: JobFilter | None = None, order_by: JobOrder = JobOrder.SUBMITTED_DESC) -> "Iterator[Job]":
        """See `AsyncClient.jobs`."""
        return (Job(self._loop, job) for job in self._loop.iterate(self._client.jobs(filters, order_by)))

    def hosts(self, filters: HostFilter | None = None, order_by: HostOrder = HostOrder.NAME) -> Iterator[HostFields]:
        """See `AsyncClient.hosts`."""
        return self._loop.iterate(self._client.hosts(filters, order_by))

    def host(self, name: str) -> HostFields:
        """See `AsyncClient.host`."""
        return self._loop.run(lambda: self._client.host(name))

    def events(self, after: str | None = None, filters: RoutingEventFilter | None = None) -> Iterator[EventFields]:
        """See `AsyncClient.events`."""
        return self._loop.iterate(self._client.events(after, filters))


class Job:
    """A job. The attributes, verbs and errors are those of `AsyncJob`."""

    def __init__(self, loop: _Loop, job: AsyncJob) -> None:
        self._loop = loop
        self._job = job

    def __repr__(self) -> str:
        return repr(self._job).replace("AsyncJob", "Job")

    @property
    def data(self) -> JobFields:
        """See `AsyncJob.data`."""
        return self._job.data

    @property
    def id(self) -> str:
        """See `AsyncJob.id`."""
        return self._job.id

    @property
    def status(self) -> str:
        """See `AsyncJob.status`."""
        return self._job.status

    @property
    def has_ended(self) -> bool:
        """See `AsyncJob.has_ended`."""
        return self._job.has_ended

    def refresh(self) -> Self:
        """See `AsyncJob.refresh`."""
        self._loop.run(self._job.refresh)
        return self

    def details(self) -> JobDetails:
        """See `AsyncJob.details`."""
        return self._loop.run(self._job.details)

    def result(self, *, check: bool = True) -> JobFields:
        """See `AsyncJob.result`."""
        return self._loop.run(lambda: self._job.result(check=check))

    def logs(self, after: str | None = None) -> Iterator[LiveLogsJobLogs]:
        """See `AsyncJob.logs`."""
        return self._loop.iterate(self._job.logs(after))

    def events(self, after: str | None = None) -> Iterator[EventFields]:
        """See `AsyncJob.events`."""
        return self._loop.iterate(self._job.events(after))

    def cancel(self) -> Self:
        """See `AsyncJob.cancel`."""
        self._loop.run(self._job.cancel)
        return self

    def retry(self) -> Self:
        """See `AsyncJob.retry`."""
        self._loop.run(self._job.retry)
        return self

    def explain(self, hosts: int = 50) -> ExplainJob:
        """See `AsyncJob.explain`."""
        return self._loop.run(lambda: self._job.explain(hosts))

    def why_not(self, host: str) -> HostChecks:
        """See `AsyncJob.why_not`."""
        return self._loop.run(lambda: self._job.why_not(host))
