"""Calls to Cloud Run: deadlines, what may be tried again, and errors as executors raise them.

Imports Google's libraries, which takes a second and 50 MiB: only for whoever has a Cloud Run host.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import google.auth
import grpc
from google.api_core import exceptions as errors
from google.api_core.retry import AsyncRetry, if_exception_type
from google.auth import exceptions as auth_errors
from google.auth.credentials import Credentials
from google.cloud import run_v2
from google.cloud.run_v2.services.executions.transports import ExecutionsGrpcAsyncIOTransport
from google.cloud.run_v2.services.jobs.transports import JobsGrpcAsyncIOTransport
from google.cloud.run_v2.services.tasks.transports import TasksGrpcAsyncIOTransport
from google.oauth2 import service_account
from google.rpc import code_pb2

from container_manager.executors import cloudrun_limits
from container_manager.executors.base import LABEL, LaunchSpec
from container_manager.executors.configs import CloudRunConfig, Vpc
from container_manager.executors.exceptions import (
    ExecutorClosedError,
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorHostError,
    ExecutorOperationError,
    ExecutorResourceError,
)

MEMORY = run_v2.EmptyDirVolumeSource.Medium.MEMORY
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
MOST_CALLS = 50
"""Calls that may be under way at once on one host."""

PAGE = 1000
GRACE = 2.0
"""Seconds beyond its own deadline after which a call is given up."""

CHANNEL = [
    # The default finds a server that is back after seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]

MAY_HAVE_HAPPENED = (
    errors.ServiceUnavailable, errors.DeadlineExceeded, errors.Cancelled, errors.Unknown,
    errors.InternalServerError, errors.RetryError, TimeoutError, grpc.aio.AioRpcError,
)  # fmt: skip
SET_UP = (errors.PermissionDenied, errors.Unauthenticated, errors.MethodNotImplemented)
HOSTS_FAULT = re.compile(r"service account|network|subnet|vpc|connector|billing", re.IGNORECASE)
"""What a refusal says when the host's settings are to blame and not the job's."""

NAMES = re.compile(r"'[^']*'|\"[^\"]*\"|\S*/\S*")
"""What a refusal quotes may be called anything."""

DENIED = re.compile(r"Permission '([^']+)'")
NOT_ENABLED = re.compile(r"has not been used in project|is disabled", re.IGNORECASE)
NO_TOKEN = "Getting metadata from plugin failed"  # noqa: S105 - what is said when there is none


class CloudRunApi:
    """One region of one project, over one channel. Belongs to the event loop in which it was opened."""

    def __init__(self, name: str, config: CloudRunConfig, channel: grpc.aio.Channel) -> None:
        self.parent = f"projects/{config.project}/locations/{config.region}"
        self._where = f"host {name}"
        self._config = config
        self._channel = channel
        self._jobs = run_v2.JobsAsyncClient(transport=JobsGrpcAsyncIOTransport(channel=channel))
        self._executions = run_v2.ExecutionsAsyncClient(transport=ExecutionsGrpcAsyncIOTransport(channel=channel))
        self._tasks = run_v2.TasksAsyncClient(transport=TasksGrpcAsyncIOTransport(channel=channel))
        self._calls = asyncio.Semaphore(MOST_CALLS)
        self._closed = False

    # -------------------------------------------------------------- jobs

    def template(self, spec: LaunchSpec, instance: str) -> run_v2.Job:
        """The Cloud Run job of an attempt. Raises ExecutorConfigurationError for what no such job can be."""
        unfit = [name for name in ("user", "network", "read_only_root") if getattr(spec, name)]
        size = cloudrun_limits.size(spec.memory_mb, spec.cpu_millis)
        if unfit or size is None:
            raise ExecutorConfigurationError(
                f"{self._where}: Cloud Run does not take the job's {', '.join(unfit) or 'size'}."
            )
        return _template(spec, size, self._config, instance)

    async def create_job(self, job_id: str, job: run_v2.Job, timeout: float) -> bool:
        """Create a job, or find what a call of this one before has made; whether it is known to be ready.

        Raises:
            ExecutorConfigurationError, ExecutorResourceError, and what all calls raise.
        """
        request = run_v2.CreateJobRequest(parent=self.parent, job=job, job_id=job_id)
        try:
            async with self._call(f"creating {job_id}", "run.jobs.create", timeout, of_job=True):
                operation = await self._jobs.create_job(request, retry=_again(timeout), timeout=timeout)
        except ExecutorOperationError as error:
            if not isinstance(error.__cause__, errors.AlreadyExists):
                raise
            # The reply to the first try was lost.
            made = await self.get_job(job_id, timeout)
            if made is not None and made.labels != job.labels:
                raise ExecutorOperationError(f"{self._where} has another job named {job_id}.") from error
            return False
        if operation.operation.done and operation.operation.error.code:
            raise self.refused(operation.operation.error.message, operation.operation.error.code)
        return bool(operation.operation.done)

    async def run_job(self, job_id: str, timeout: float) -> str:
        """Start an execution and return its name, or "". Not to be repeated: each call that arrives starts one."""
        async with self._call(f"starting {job_id}", "run.jobs.run", timeout, of_job=True):
            operation = await self._jobs.run_job(
                run_v2.RunJobRequest(name=self._job(job_id)), retry=None, timeout=timeout
            )
        return str(operation.metadata.name) if operation.metadata else ""

    async def get_job(self, job_id: str, timeout: float) -> run_v2.Job | None:
        """A job, or None when there is none, or none any more."""
        async with self._call(f"looking at {job_id}", "run.jobs.get", timeout):
            try:
                job: run_v2.Job = await self._jobs.get_job(
                    name=self._job(job_id), retry=_again(timeout), timeout=timeout
                )
            except errors.NotFound:
                return None
        return None if job.delete_time else job

    async def probe(self, timeout: float) -> None:
        """One cheap call, and no second try: the answer to it is how the region is."""
        request = run_v2.ListJobsRequest(parent=self.parent, page_size=1)
        # Not behind calls that are slow.
        async with self._errors("listing jobs", "run.jobs.list", timeout):
            await self._jobs.list_jobs(request, retry=None, timeout=timeout)

    async def list_jobs(self, timeout: float) -> list[run_v2.Job]:
        """All jobs of the region."""
        request = run_v2.ListJobsRequest(parent=self.parent, page_size=PAGE)
        async with self._call("listing jobs", "run.jobs.list", timeout):
            pager = await self._jobs.list_jobs(request, retry=_again(timeout), timeout=timeout)
            return [job async for job in pager if not job.delete_time]

    async def delete_job(self, job_id: str, timeout: float) -> run_v2.Job | None:
        """Delete a job with its executions, and return it as it was; None when that is not known."""
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
        """The region's executions, newest first, page by page until `until` has seen enough of them."""
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
        """The name of a job's newest execution, or "" when it has none."""
        request = run_v2.ListExecutionsRequest(parent=self._job(job_id), page_size=1)
        async with self._call(f"looking at {job_id}", "run.executions.list", timeout):
            try:
                pager = await self._executions.list_executions(request, retry=_again(timeout), timeout=timeout)
            except errors.NotFound:
                return ""
            return next((str(execution.name) for execution in pager.executions), "")

    async def get_execution(self, name: str, timeout: float) -> run_v2.Execution | None:
        """An execution, or None when there is none."""
        async with self._call(f"looking at {_short(name)}", "run.executions.get", timeout):
            try:
                execution: run_v2.Execution = await self._executions.get_execution(
                    name=name, retry=_again(timeout), timeout=timeout
                )
            except errors.NotFound:
                return None
        return execution

    async def cancel_execution(self, name: str, timeout: float) -> bool:
        """Ask an execution to end; False when it does not run."""
        async with self._call(f"cancelling {_short(name)}", "run.executions.cancel", timeout):
            try:
                await self._executions.cancel_execution(name=name, retry=None, timeout=timeout)
            except (errors.FailedPrecondition, errors.NotFound):
                return False
        return True

    async def first_task(self, execution: str, timeout: float) -> run_v2.Task | None:
        """The only task of an execution, if it has come to one."""
        request = run_v2.ListTasksRequest(parent=execution, page_size=1)
        async with self._call(f"looking at {_short(execution)}", "run.tasks.list", timeout):
            try:
                pager = await self._tasks.list_tasks(request, retry=_again(timeout), timeout=timeout)
            except errors.NotFound:
                return None
            tasks: list[run_v2.Task] = list(pager.tasks)
        return tasks[0] if tasks else None

    async def aclose(self) -> None:
        """Hang up; calls under way raise ExecutorClosedError."""
        self._closed = True
        await self._channel.close(None)

    # -------------------------------------------------------------- what all calls share

    def _job(self, job_id: str) -> str:
        return f"{self.parent}/jobs/{job_id}"

    @asynccontextmanager
    async def _call(self, doing: str, permission: str, timeout: float, *, of_job: bool = False) -> AsyncIterator[None]:
        """One of not too many calls at once."""
        async with self._calls, self._errors(doing, permission, timeout, of_job=of_job):
            yield

    @asynccontextmanager
    async def _errors(
        self, doing: str, permission: str, timeout: float, *, of_job: bool = False
    ) -> AsyncIterator[None]:
        """Errors as executors raise them.

        `permission` is what the calls of the block need; `of_job`: a refusal may be the job's fault.
        """
        try:
            # gRPC's own deadline does not cover credentials.
            async with asyncio.timeout(timeout + GRACE):
                yield
        except SET_UP as error:
            raise ExecutorHostError(self._refusal(error, permission)) from error
        except (errors.InvalidArgument, errors.OutOfRange) as error:
            if of_job:
                raise self.refused(_said(error)) from error
            raise ExecutorHostError(f"{self._where}: Cloud Run refuses {doing}: {_said(error)}") from error
        except (errors.GoogleAPICallError, *MAY_HAVE_HAPPENED) as error:
            raise self._translated(error, doing) from error
        except auth_errors.GoogleAuthError as error:
            raise ExecutorHostError(f"{self._where}: config.credentials: {error}") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            # A channel that is closed cancels what is under way on it.
            if self._closed and task is not None and not task.cancelling():
                raise self._hung_up() from error
            raise
        except (grpc.aio.UsageError, RuntimeError) as error:
            if self._closed:
                raise self._hung_up() from error
            raise

    def _hung_up(self) -> ExecutorError:
        return ExecutorClosedError(f"{self._where}: its settings were changed.")

    def _translated(self, error: BaseException, doing: str) -> ExecutorError:
        if self._closed:
            return self._hung_up()
        if isinstance(error, errors.ResourceExhausted):
            return self.refused(_said(error), code_pb2.RESOURCE_EXHAUSTED)
        if isinstance(error, (errors.DeadlineExceeded, TimeoutError)):
            return ExecutorConnectionError(f"{self._where}: no answer in time while {doing}.")
        if NO_TOKEN in (said := _said(error)):
            why = said.partition(f"{NO_TOKEN} with error: ")[2] or said
            return ExecutorConnectionError(f"{self._where}: config.credentials: there is no access token: {why}")
        if isinstance(error, MAY_HAVE_HAPPENED):
            return ExecutorConnectionError(f"{self._where}: {self._endpoint} does not answer: {said}")
        return ExecutorOperationError(f"{self._where}: while {doing}: {_said(error)}")

    def refused(self, text: str, code: int = code_pb2.INVALID_ARGUMENT) -> ExecutorError:
        """The error for a job that was looked at and refused: a quota's, the host's or the job's."""
        if code == code_pb2.RESOURCE_EXHAUSTED:
            return ExecutorResourceError(f"{self._where}: a quota of Cloud Run is used up: {text}")
        hosts = code == code_pb2.PERMISSION_DENIED or HOSTS_FAULT.search(NAMES.sub("", text))
        kind = ExecutorHostError if hosts else ExecutorConfigurationError
        return kind(f"{self._where}: Cloud Run refuses the job: {text}")

    def _refusal(self, error: BaseException, permission: str) -> str:
        """A refusal in words that name what to change."""
        said = _said(error)
        project, region = self._config.project, self._config.region
        if isinstance(error, errors.MethodNotImplemented):
            return f"{self._where}: {self._endpoint} does not serve this ({said}); is config.endpoint the region's own?"
        if isinstance(error, errors.Unauthenticated):
            return f"{self._where}: config.credentials: Cloud Run does not accept them ({said})."
        if NOT_ENABLED.search(said):
            return f"{self._where}: the Cloud Run Admin API is not enabled in project {project}: {said}"
        if "on 'locations/" in said:
            return (
                f"{self._where}: config.region: {region!r} may not exist, or project {project} may not use it ({said})."
            )
        named = denied[1] if (denied := DENIED.search(said)) else permission
        return f"{self._where}: the credentials lack the permission {named} (project {project}, {region}): {said}"

    @property
    def _endpoint(self) -> str:
        return self._config.endpoint or default_endpoint(self._config)


def _template(spec: LaunchSpec, size: tuple[int, int], config: CloudRunConfig, instance: str) -> run_v2.Job:
    cpus, memory_mb = size
    mounts = {f"tmpfs-{number}": mount for number, mount in enumerate(spec.tmpfs.items())}
    container = run_v2.Container(
        image=spec.image,
        command=list(spec.entry_point),
        args=list(spec.command),
        working_dir=spec.working_dir,
        env=[run_v2.EnvVar(name=name, value=value) for name, value in spec.variables.items()],
        resources=run_v2.ResourceRequirements(limits={"cpu": str(cpus), "memory": f"{memory_mb}Mi"}),
        volume_mounts=[run_v2.VolumeMount(name=name, mount_path=path) for name, (path, _) in mounts.items()],
    )
    task = run_v2.TaskTemplate(
        containers=[container],
        volumes=[
            run_v2.Volume(name=name, empty_dir=run_v2.EmptyDirVolumeSource(medium=MEMORY, size_limit=f"{size_mb}Mi"))
            for name, (_, size_mb) in mounts.items()
        ],
        # The default is 3, which would run the job again.
        max_retries=0,
        timeout=timedelta(seconds=spec.timeout_seconds or config.limits.timeout_seconds),
        service_account=config.service_account,
        execution_environment=run_v2.ExecutionEnvironment.EXECUTION_ENVIRONMENT_GEN2,
        vpc_access=None if config.vpc is None else _vpc_access(config.vpc),
    )
    labels = {"instance": instance, "job": str(spec.job_id), "attempt": str(spec.attempt)}
    labels = {f"{LABEL}-{name}": value for name, value in labels.items()}
    # An execution has the labels of the template, and not those of the job.
    template = run_v2.ExecutionTemplate(labels=labels, task_count=1, parallelism=1, template=task)
    return run_v2.Job(labels=labels, template=template, client=LABEL)


def _vpc_access(vpc: Vpc) -> run_v2.VpcAccess:
    egress = getattr(run_v2.VpcAccess.VpcEgress, vpc.egress.upper().replace("-", "_"))
    if vpc.connector:
        return run_v2.VpcAccess(connector=vpc.connector, egress=egress)
    interface = run_v2.VpcAccess.NetworkInterface(network=vpc.network, subnetwork=vpc.subnetwork, tags=vpc.tags)
    return run_v2.VpcAccess(network_interfaces=[interface], egress=egress)


def default_endpoint(config: CloudRunConfig) -> str:
    """Google's own for the region: the global one does not serve executions."""
    return f"{config.region}-run.googleapis.com"


async def open_api(name: str, config: CloudRunConfig) -> CloudRunApi:
    """Connect. Must be called in the event loop that will use it.

    Raises:
        ExecutorHostError: there are no credentials, or they cannot be read.
    """
    return CloudRunApi(name, config, await open_channel(name, config, config.endpoint or default_endpoint(config)))


async def open_channel(name: str, config: CloudRunConfig, endpoint: str) -> grpc.aio.Channel:
    """A channel with the host's credentials; raises as `open_api`."""
    if config.plaintext:
        return grpc.aio.insecure_channel(endpoint, options=CHANNEL)
    # It reads files and may ask a metadata server, and blocks meanwhile.
    credentials = await asyncio.to_thread(_credentials, name, config)
    target = endpoint if re.search(r":\d+$", endpoint) else f"{endpoint}:443"
    return JobsGrpcAsyncIOTransport.create_channel(target, credentials=credentials, scopes=SCOPES, options=CHANNEL)


def _credentials(name: str, config: CloudRunConfig) -> Credentials:
    try:
        if config.credentials == "adc":
            found: Credentials = google.auth.default(scopes=SCOPES)[0]
        else:
            found = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
                config.credentials, scopes=SCOPES
            )
    except auth_errors.DefaultCredentialsError as error:
        raise ExecutorHostError(
            f"host {name}: config.credentials: there are no application default credentials on this machine; log in "
            f"with gcloud auth application-default login, or give the path of a service account's key file ({error})."
        ) from error
    except (OSError, ValueError, auth_errors.GoogleAuthError) as error:
        raise ExecutorHostError(
            f"host {name}: config.credentials: {config.credentials!r} is not a service account's key file that this "
            f"service can read ({error})."
        ) from error
    return found


def _said(error: BaseException) -> str:
    """What the server or the library says, without codes and repetitions."""
    if isinstance(error, errors.RetryError):
        error = error.cause or error
    said = error.details() if isinstance(error, grpc.aio.AioRpcError) else getattr(error, "message", "") or str(error)
    if "Connection refused" in (said or ""):
        return "connection refused."
    text = " ".join((said or "no reason given").split())
    return text if text.endswith(".") else f"{text}."


def _again(timeout: float) -> Any:
    """Try again what may be repeated, within the timeout; not what was not even sent, for want of an access token."""
    passing = if_exception_type(errors.ServiceUnavailable, errors.Aborted, errors.InternalServerError, errors.Unknown)
    return AsyncRetry(
        lambda error: passing(error) and NO_TOKEN not in str(error), initial=0.2, maximum=2.0, timeout=timeout
    )


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
