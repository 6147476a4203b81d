"""Calls to Cloud Run: deadlines, which calls may be repeated, and errors as executors raise them.

It imports Google's libraries, which take a second and 50 MiB to load, so it is loaded only when there is such a host.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.api_core import exceptions as errors
from google.api_core.retry import AsyncRetry, if_exception_type
from google.auth import exceptions as auth_errors
from google.cloud import run_v2
from google.cloud.run_v2.services.executions.transports import ExecutionsGrpcAsyncIOTransport
from google.cloud.run_v2.services.jobs.transports import JobsGrpcAsyncIOTransport
from google.cloud.run_v2.services.tasks.transports import TasksGrpcAsyncIOTransport

from container_manager.domain.cloudrun_limits import task_size
from container_manager.executors.base import LaunchSpec
from container_manager.executors.cloudrun.channel import default_endpoint, open_channel
from container_manager.executors.cloudrun.errors import (
    EFFECT_UNKNOWN,
    NO_TOKEN,
    SET_UP_ERRORS,
    Translator,
    message_of,
)
from container_manager.executors.cloudrun.template import job_template
from container_manager.executors.configs import CloudRunConfig
from container_manager.executors.exceptions import (
    ExecutorClosedError,
    ExecutorConfigurationError,
    ExecutorError,
    ExecutorHostError,
    ExecutorOperationError,
)

MOST_CALLS = 50
"""Calls that may be in progress at once on one host."""

PAGE = 1000
GRACE = 2.0
"""Seconds beyond its own deadline after which a call is given up."""


class CloudRunApi:
    """One region of one project, over one channel. Belongs to the event loop in which it was opened."""

    def __init__(self, name: str, config: CloudRunConfig, channel: grpc.aio.Channel) -> None:
        self.parent = f"projects/{config.project}/locations/{config.region}"
        self._where = f"host {name}"
        self._translator = Translator(name, config)
        self._config = config
        self._channel = channel
        self._jobs = run_v2.JobsAsyncClient(transport=JobsGrpcAsyncIOTransport(channel=channel))
        self._executions = run_v2.ExecutionsAsyncClient(transport=ExecutionsGrpcAsyncIOTransport(channel=channel))
        self._tasks = run_v2.TasksAsyncClient(transport=TasksGrpcAsyncIOTransport(channel=channel))
        self._calls = asyncio.Semaphore(MOST_CALLS)
        self._closed = False

    # -------------------------------------------------------------- jobs

    def template(self, spec: LaunchSpec, instance: str) -> run_v2.Job:
        """The Cloud Run job of an attempt.

        Raises:
            ExecutorConfigurationError: Cloud Run does not offer what the job asks for.
        """
        unfit = [name for name in ("user", "network", "read_only_root") if getattr(spec, name)]
        size = task_size(spec.memory_mb, spec.cpu_millis)
        if unfit or size is None:
            raise ExecutorConfigurationError(
                f"{self._where}: Cloud Run does not offer the job's {', '.join(unfit) or 'size'}; "
                "change the job, or prefer another executor."
            )
        return job_template(spec, size, self._config, instance)

    async def create_job(self, job_id: str, job: run_v2.Job, timeout: float) -> bool:
        """Create a job, or find the one that an earlier try of this call has created; returns whether it is ready.

        Raises:
            ExecutorConfigurationError: Cloud Run refuses the job.
            ExecutorResourceError: a quota is used up.
            ExecutorError: as all calls.
        """
        request = run_v2.CreateJobRequest(parent=self.parent, job=job, job_id=job_id)
        try:
            async with self._call(f"creating {job_id}", "run.jobs.create", timeout, of_job=True):
                operation = await self._jobs.create_job(request, retry=_again(timeout), timeout=timeout)
        except ExecutorOperationError as error:
            if not isinstance(error.__cause__, errors.AlreadyExists):
                raise
            # The answer to the first try was lost.
            made = await self.get_job(job_id, timeout)
            if made is not None and made.labels != job.labels:
                raise ExecutorOperationError(f"{self._where} has another job named {job_id}.") from error
            return False
        if operation.operation.done and operation.operation.error.code:
            raise self.refused(operation.operation.error.message, operation.operation.error.code)
        return bool(operation.operation.done)

    async def run_job(self, job_id: str, timeout: float) -> str:
        """Start an execution and return its name, or "". Never repeated: each call that arrives starts one."""
        async with self._call(f"starting {job_id}", "run.jobs.run", timeout, of_job=True):
            operation = await self._jobs.run_job(
                run_v2.RunJobRequest(name=self._job(job_id)), retry=None, timeout=timeout
            )
        return str(operation.metadata.name) if operation.metadata else ""

    async def get_job(self, job_id: str, timeout: float) -> run_v2.Job | None:
        """A job; None when there is none, or when it was deleted."""
        async with self._call(f"looking at {job_id}", "run.jobs.get", timeout):
            try:
                job: run_v2.Job = await self._jobs.get_job(
                    name=self._job(job_id), retry=_again(timeout), timeout=timeout
                )
            except errors.NotFound:
                return None
        return None if job.delete_time else job

    async def probe(self, timeout: float) -> None:
        """One cheap call without a retry, whose answer shows the state of the region."""
        request = run_v2.ListJobsRequest(parent=self.parent, page_size=1)
        # Without `_call`, so that a probe does not queue behind slow calls.
        async with self._errors("listing jobs", "run.jobs.list", timeout):
            await self._jobs.list_jobs(request, retry=None, timeout=timeout)

    async def list_jobs(self, timeout: float) -> list[run_v2.Job]:
        """All jobs of the region."""
        request = run_v2.ListJobsRequest(parent=self.parent, page_size=PAGE)
        async with self._call("listing jobs", "run.jobs.list", timeout):
            pager = await self._jobs.list_jobs(request, retry=_again(timeout), timeout=timeout)
            return [job async for job in pager if not job.delete_time]

    async def delete_job(self, job_id: str, timeout: float) -> run_v2.Job | None:
        """Delete a job with its executions; returns the job as it was, or None when that is unknown."""
        async with self._call(f"removing {job_id}", "run.jobs.delete", timeout):
            try:
                operation = await self._jobs.delete_job(name=self._job(job_id), retry=_again(timeout), timeout=timeout)
            except errors.NotFound:
                return None
        deleted: run_v2.Job | None = operation.metadata
        return deleted

    # -------------------------------------------------------------- executions

    async def list_executions(
        self, until: Callable[[list[run_v2.Execution]], bool], timeout: float, *, deleted: bool = False
    ) -> list[run_v2.Execution]:
        """The region's executions, newest first, page by page until `until` returns True for those read so far."""
        request = run_v2.ListExecutionsRequest(parent=self._job("-"), page_size=PAGE, show_deleted=deleted)
        found: list[run_v2.Execution] = []
        async with self._call("listing executions", "run.executions.list", timeout):
            pager = await self._executions.list_executions(request, retry=_again(timeout), timeout=timeout)
            async for page in pager.pages:
                found += page.executions
                if until(found):
                    break
        return found

    async def newest_execution(self, job_id: str, timeout: float) -> str:
        """The name of a job's newest execution; "" when it has none."""
        request = run_v2.ListExecutionsRequest(parent=self._job(job_id), page_size=1)
        async with self._call(f"looking at {job_id}", "run.executions.list", timeout):
            try:
                pager = await self._executions.list_executions(request, retry=_again(timeout), timeout=timeout)
            except errors.NotFound:
                return ""
            return next((str(execution.name) for execution in pager.executions), "")

    async def get_execution(self, name: str, timeout: float) -> run_v2.Execution | None:
        """An execution; None when there is none."""
        async with self._call(f"looking at {_short(name)}", "run.executions.get", timeout):
            try:
                execution: run_v2.Execution = await self._executions.get_execution(
                    name=name, retry=_again(timeout), timeout=timeout
                )
            except errors.NotFound:
                return None
        return execution

    async def cancel_execution(self, name: str, timeout: float) -> bool:
        """Request the cancellation of an execution; returns False when it does not run."""
        async with self._call(f"cancelling {_short(name)}", "run.executions.cancel", timeout):
            try:
                await self._executions.cancel_execution(name=name, retry=None, timeout=timeout)
            except (errors.FailedPrecondition, errors.NotFound):
                return False
        return True

    async def first_task(self, execution: str, timeout: float) -> run_v2.Task | None:
        """The only task of an execution; None when it does not have one yet."""
        request = run_v2.ListTasksRequest(parent=execution, page_size=1)
        async with self._call(f"looking at {_short(execution)}", "run.tasks.list", timeout):
            try:
                pager = await self._tasks.list_tasks(request, retry=_again(timeout), timeout=timeout)
            except errors.NotFound:
                return None
            tasks: list[run_v2.Task] = list(pager.tasks)
        return tasks[0] if tasks else None

    def refused(self, text: str, code: int | None = None) -> ExecutorError:
        """The error for a job that Cloud Run has refused; `code` is Google's status code, if there is one."""
        return self._translator.refused(text) if code is None else self._translator.refused(text, code)

    async def aclose(self) -> None:
        """Close the channel; calls in progress raise ExecutorClosedError."""
        self._closed = True
        await self._channel.close(None)

    # -------------------------------------------------------------- what all calls share

    def _job(self, job_id: str) -> str:
        return f"{self.parent}/jobs/{job_id}"

    @asynccontextmanager
    async def _call(self, doing: str, permission: str, timeout: float, *, of_job: bool = False) -> AsyncIterator[None]:
        """One of at most MOST_CALLS calls in progress."""
        async with self._calls, self._errors(doing, permission, timeout, of_job=of_job):
            yield

    @asynccontextmanager
    async def _errors(
        self, doing: str, permission: str, timeout: float, *, of_job: bool = False
    ) -> AsyncIterator[None]:
        """Raise the block's errors as executors do.

        `permission`: what the calls in the block need. `of_job`: a refusal may be caused by the job's settings.
        """
        try:
            # gRPC's own deadline does not include fetching credentials.
            async with asyncio.timeout(timeout + GRACE):
                yield
        except SET_UP_ERRORS as error:
            raise self._translator.not_set_up(error, permission) from error
        except (errors.InvalidArgument, errors.OutOfRange) as error:
            if of_job:
                raise self.refused(message_of(error)) from error
            raise ExecutorHostError(f"{self._where}: Cloud Run refuses {doing}: {message_of(error)}") from error
        except (errors.GoogleAPICallError, *EFFECT_UNKNOWN) as error:
            raise (self._closed_error() if self._closed else self._translator.failed(error, doing)) from error
        except auth_errors.GoogleAuthError as error:
            raise ExecutorHostError(f"{self._where}: config.credentials: {error}") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            # Closing a channel cancels the calls in progress.
            if self._closed and task is not None and not task.cancelling():
                raise self._closed_error() from error
            raise
        except (grpc.aio.UsageError, RuntimeError) as error:
            if self._closed:
                raise self._closed_error() from error
            raise

    def _closed_error(self) -> ExecutorError:
        return ExecutorClosedError(f"{self._where}: its settings were changed.")


async def open_api(name: str, config: CloudRunConfig) -> CloudRunApi:
    """Connect. Must be called in the event loop that will use it.

    Raises:
        ExecutorHostError: there are no credentials, or they cannot be read.
    """
    return CloudRunApi(name, config, await open_channel(name, config, config.endpoint or default_endpoint(config)))


def _again(timeout: float) -> Any:
    """Retries passing errors within the timeout, but not a call that was not sent because there is no access token."""
    passing = if_exception_type(errors.ServiceUnavailable, errors.Aborted, errors.InternalServerError, errors.Unknown)
    return AsyncRetry(
        lambda error: passing(error) and NO_TOKEN not in str(error), initial=0.2, maximum=2.0, timeout=timeout
    )


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
