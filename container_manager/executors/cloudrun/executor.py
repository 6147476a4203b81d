"""The executor of regions of Google Cloud Run, through google-cloud-run.

Each attempt is a Cloud Run job of its own, with one execution of one task. The id of such a job is never used again, so
that a late call of a worker that has lost the attempt finds nothing to start.
"""

import asyncio
import importlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Collection, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from container_manager.aio import cancel_and_wait, start_detached
from container_manager.executors.base import (
    LABEL,
    ContainerExecutor,
    Execution,
    ExecutionState,
    ExecutionStatus,
    ExecutorSettings,
    LaunchSpec,
    OwnedExecution,
    Report,
)
from container_manager.executors.cloudrun.status import (
    is_cancelled,
    is_success,
    job_id_of,
    state_of,
    status_of_execution,
)
from container_manager.executors.configs import CloudRunConfig
from container_manager.executors.exceptions import (
    ExecutorClosedError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorHostError,
    ExecutorOperationError,
    ExecutorResourceError,
)
from container_manager.executors.output import BoundedOutput, Output, OutputLine
from container_manager.executors.watcher import Watcher

if TYPE_CHECKING:
    from google.cloud import run_v2

    from container_manager.executors.cloudrun.api import CloudRunApi
    from container_manager.executors.cloudrun.logs import CloudRunLogs

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0
"""Seconds between two looks at a state that is about to change."""

MOST_LISTED = 5000
"""Executions that one look reads at most: the region may have many of other owners."""

EXHAUSTED_FOR = 30.0
"""Seconds for which a quota counts as used up after a refusal."""

SETTLE = 5.0
"""Seconds until a started execution appears in lists."""

NO_LOGS = "Cloud Run keeps it in Cloud Logging; to read it there, install container-manager[cloudrun-logs]."


NO_GOOGLE = "Google's libraries are not installed: install container-manager[cloudrun], and start the service again."


class CloudRunExecutor(ContainerExecutor):
    """Runs containers in one region of one project."""

    def __init__(self, settings: ExecutorSettings) -> None:
        super().__init__(settings)
        self._config = CloudRunConfig.model_validate(settings.config)
        self._api: CloudRunApi | None = None
        self._logs: CloudRunLogs | None = None
        self._opening: asyncio.Task[CloudRunApi] | None = None
        self._opening_logs, self._listing = asyncio.Lock(), asyncio.Lock()
        self.watcher = Watcher(self._alive, self._config.poll_seconds)
        # By job: the name of its execution, once it is known.
        self._names: dict[str, str] = {}
        self._never_ran: set[str] = set()
        self._listed_at, self._listed = 0.0, list[OwnedExecution]()
        # From the last list, corrected by what this executor has started and seen ended since.
        self._running: set[str] = set()
        self._exhausted_at = -EXHAUSTED_FOR
        self._closing: set[asyncio.Task[object]] = set()
        self._closed = False

    @property
    def max_launches(self) -> int:
        return self._config.max_launches

    @property
    def has_quota(self) -> bool:
        return True

    @property
    def settle_seconds(self) -> float:
        return SETTLE

    # -------------------------------------------------------------- health

    async def health_check(self) -> bool:
        api = await self._open()
        await self._counted(api.probe(self.settings.call_timeout))
        return True

    async def get_capacity_info(self) -> dict[str, Any]:
        if not self._listed_at:
            await self.list_owned()
        exhausted = time.monotonic() - self._exhausted_at < EXHAUSTED_FOR
        return {
            "max_jobs": self.settings.max_jobs,
            "current_jobs": len(self._running),
            "available_slots": 0 if exhausted else max(self.settings.max_jobs - len(self._running), 0),
        }

    # -------------------------------------------------------------- launching

    async def create(self, spec: LaunchSpec, report: Report = lambda _: None) -> str:  # noqa: ARG002 - it is quick
        api, job_id = await self._open(), f"{spec.name}-{secrets.token_hex(4)}"
        job = api.template(spec, self.settings.instance)
        if not await self._counted(api.create_job(job_id, job, self.settings.launch_timeout)):
            await self._until_ready(job_id)
        return job_id

    async def _until_ready(self, job_id: str) -> None:
        """Wait until the created job can be started; Cloud Run validates it only then."""
        api, deadline, pause = await self._open(), time.monotonic() + self.settings.launch_timeout, FIRST_PAUSE
        while (job := await self._counted(api.get_job(job_id, self.settings.call_timeout))) is None or job.reconciling:
            if time.monotonic() > deadline:
                raise ExecutorOperationError(f"host {self.settings.name}: {job_id} has not become ready in time.")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)
        if job.terminal_condition.state.name == "CONDITION_FAILED":
            with suppress(ExecutorError):  # otherwise the reconciler removes it
                await self.remove(job_id)
            raise api.refused(job.terminal_condition.message)

    async def start(self, execution: Execution) -> ExecutionState:
        api = await self._open()
        name = await self._counted(api.run_job(execution.id, self.settings.launch_timeout))
        self._running.add(execution.id)
        if name:
            self._names[execution.id] = name
        return ExecutionState.STARTING

    async def has_run(self, execution: Execution) -> bool | None:
        api = await self._open()
        newest = await self._counted(api.list_executions(lambda _: True, self.settings.launch_timeout, deleted=True))
        if any(job_id_of(found) == execution.id for found in newest):
            return True
        return False if execution.id in self._never_ran else None

    # -------------------------------------------------------------- looking

    async def find(self, spec: LaunchSpec) -> ExecutionStatus | None:
        owned = await self.list_owned()
        mine = [found for found in owned if (found.job_id, found.attempt) == (spec.job_id, spec.attempt)]
        # A started one comes before one that was only created.
        mine.sort(key=lambda owned: owned.state is ExecutionState.CREATED)
        return await self.status(replace(mine[0].as_execution(), spec=spec)) if mine else None

    async def status(self, execution: Execution) -> ExecutionStatus | None:
        api, name = await self._open(), await self._name_of(execution.id)
        if name is None:
            return None
        if not name:
            return ExecutionStatus(execution.id, ExecutionState.CREATED)
        found = await self._counted(api.get_execution(name, self.settings.call_timeout))
        status = None if found is None else await self._verdict(execution.id, found)
        if status is None or status.state is ExecutionState.EXITED:
            self._forget(execution.id)
        return status

    def _forget(self, job_id: str) -> None:
        self._names.pop(job_id, None)
        self._running.discard(job_id)

    async def _name_of(self, job_id: str) -> str | None:
        """The name of the job's execution; "" when it has none, None when the job does not exist."""
        if (known := self._names.get(job_id)) is not None:
            return known
        api, timeout = await self._open(), self.settings.call_timeout
        job = await self._counted(api.get_job(job_id, timeout))
        if job is None:
            return None
        name = job.latest_created_execution.name or await self._counted(api.newest_execution(job_id, timeout))
        if name and "/" not in name:
            name = f"{api.parent}/jobs/{job_id}/executions/{name}"
        if name:
            self._names[job_id] = name
        return name

    async def _verdict(self, job_id: str, found: "run_v2.Execution") -> ExecutionStatus:
        task = None
        if state_of(found) is ExecutionState.EXITED and not is_success(found) and not is_cancelled(found):
            api = await self._open()
            task = await self._counted(api.first_task(found.name, self.settings.call_timeout))
        return status_of_execution(job_id, found, task)

    async def wait(self, execution: Execution, seen: ExecutionState = ExecutionState.RUNNING) -> ExecutionStatus | None:
        return await self.watcher.wait(execution.id, seen, lambda: self.status(execution))

    async def _alive(self, wanted: Collection[str]) -> Mapping[str, ExecutionState]:
        """The states of executions that have not ended, by one list for all of them."""
        api = await self._open()
        missing = set(wanted)

        def enough(found: "list[run_v2.Execution]") -> bool:
            missing.difference_update(map(job_id_of, found))
            # Executions that are not among the newest are looked up one by one.
            return not missing or len(found) > MOST_LISTED

        found = await self._counted(api.list_executions(enough, self.settings.launch_timeout))
        states = {job_id_of(execution): state_of(execution) for execution in found}
        return {job_id: state for job_id, state in states.items() if state is not ExecutionState.EXITED}

    async def list_owned(self) -> list[OwnedExecution]:
        asked = time.monotonic()
        async with self._listing:
            # Callers that come while a list is in progress share the next one.
            if self._listed_at < asked:
                began, api = time.monotonic(), await self._open()
                jobs = await self._counted(api.list_jobs(self.settings.call_timeout))
                self._listed_at = began
                self._listed = [owned for job in jobs if (owned := self._owned_execution(job)) is not None]
                self._running = {owned.id for owned in self._listed if owned.state is ExecutionState.RUNNING}
        return self._listed

    def _owned_execution(self, job: "run_v2.Job") -> OwnedExecution | None:
        labels = job.labels
        if labels.get(f"{LABEL}-instance") != self.settings.instance:
            return None
        latest = job.latest_created_execution
        if not (latest.name or job.execution_count):
            state = ExecutionState.CREATED
        else:
            state = ExecutionState.EXITED if latest.completion_time else ExecutionState.RUNNING
        name = job.name.rsplit("/", 1)[-1]
        try:
            return OwnedExecution(name, int(labels[f"{LABEL}-job"]), int(labels[f"{LABEL}-attempt"]), state)
        except (KeyError, ValueError):
            logger.warning("job %s has the label of this service but no valid job and attempt", name)
            return None

    # -------------------------------------------------------------- ending

    async def stop(self, execution: Execution, grace: float) -> bool:
        api, deadline = await self._open(), time.monotonic() + grace + self.settings.launch_timeout
        asked, pause = False, FIRST_PAUSE
        while time.monotonic() < deadline:
            try:
                name = await self._name_of(execution.id)
                if not name:
                    return False
                asked = asked or await api.cancel_execution(name, self.settings.call_timeout)
                found = await api.get_execution(name, self.settings.call_timeout)
                if found is None or found.completion_time:
                    return found is not None and is_cancelled(found)
            except ExecutorClosedError:
                raise
            except (ExecutorConnectionError, ExecutorResourceError) as error:
                # The call may have had its effect; the next look shows it.
                logger.info("%s could not be stopped yet: %s", execution.spec.name, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)
        raise ExecutorConnectionError(f"host {self.settings.name}: {execution.spec.name} has not ended in time.")

    async def remove(self, execution_id: str) -> None:
        api = await self._open()
        job = await self._counted(api.delete_job(execution_id, self.settings.launch_timeout))
        self._forget(execution_id)
        if job is not None and job.name and not job.execution_count and not job.latest_created_execution.name:
            if len(self._never_ran) > MOST_LISTED:
                # `has_run` is called soon after a removal, if at all.
                self._never_ran.clear()
            self._never_ran.add(execution_id)

    # -------------------------------------------------------------- output

    async def logs(self, execution: Execution) -> Output:
        logs, output = await self._open_logs(), BoundedOutput(self.settings.output_limit)
        for line in await logs.all_of(execution.id):
            output.add(line)
        return output.kept()

    async def follow(self, execution: Execution, since_ns: int = 0) -> AsyncGenerator[OutputLine, None]:
        logs = await self._open_logs()
        async with aclosing(logs.follow(execution.id, since_ns, lambda: self._has_ended(execution))) as lines:
            async for line in lines:
                yield line

    async def _has_ended(self, execution: Execution) -> bool:
        status = await self.status(execution)
        return status is None or status.state is ExecutionState.EXITED

    # -------------------------------------------------------------- connections

    async def _counted(self, call: Awaitable[T]) -> T:
        """The call's answer; remembers when a quota is used up, and when the credentials must be read again."""
        try:
            return await call
        except ExecutorResourceError:
            self._exhausted_at = time.monotonic()
            raise
        except ExecutorError as error:
            if "config.credentials" in str(error):
                self._connect_anew()
            raise

    def _connect_anew(self) -> None:
        """Let the next call read the credentials again: a key that is renewed in its file is another one."""
        for connection in (self._api, self._logs):
            if connection is not None:
                start_detached(connection.aclose(), "closing a connection with old credentials", self._closing)
        self._api = self._logs = None

    async def _open(self) -> "CloudRunApi":
        if self._closed:
            raise self._closed_error()
        if self._api is not None:
            return self._api
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect())
        opening = self._opening
        try:
            # Looking for credentials may take longer than the caller waits; the next caller gets the result.
            return await asyncio.shield(opening)
        except asyncio.CancelledError as error:
            if opening.cancelled() and self._closed:
                raise self._closed_error() from error
            raise
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None

    async def _connect(self) -> "CloudRunApi":
        # In a thread: Google's libraries take a second to load, which would block the event loop.
        try:
            module = await asyncio.to_thread(importlib.import_module, "container_manager.executors.cloudrun.api")
        except ModuleNotFoundError as error:
            raise ExecutorHostError(NO_GOOGLE) from error
        api: CloudRunApi = await module.open_api(self.settings.name, self._config)
        self._api = api
        return api

    async def _open_logs(self) -> "CloudRunLogs":
        await self._open()
        async with self._opening_logs:
            if self._logs is None:
                try:
                    module = await asyncio.to_thread(
                        importlib.import_module, "container_manager.executors.cloudrun.logs"
                    )
                except ImportError as error:
                    raise ExecutorOperationError(NO_LOGS) from error
                logs: CloudRunLogs = await module.open_logs(
                    self.settings.name, self._config, self.settings.output_limit
                )
                if self._closed:
                    await logs.aclose()
                    raise self._closed_error()
                self._logs = logs
        return self._logs

    async def aclose(self) -> None:
        self._closed = True
        await self.watcher.aclose()
        await cancel_and_wait(self._opening)
        await asyncio.gather(*self._closing)
        for connection in (self._api, self._logs):
            if connection is not None:
                await connection.aclose()
        self._api = self._logs = None
