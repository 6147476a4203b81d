"""Regions of Google Cloud Run, through google-cloud-run.

An attempt is a Cloud Run job of its own with one execution of one task. The job's id is never used again, so that a
late call of somebody who lost the attempt finds nothing it could start.
"""

import asyncio
import importlib
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Collection, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from container_manager.executors.base import (
    LABEL,
    ContainerExecutor,
    Execution,
    ExecutionState,
    ExecutionStatus,
    ExecutorSettings,
    LaunchSpec,
    OwnedExecution,
    Tell,
)
from container_manager.executors.configs import CloudRunConfig
from container_manager.executors.exceptions import (
    ExecutorClosedError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorOperationError,
    ExecutorResourceError,
)
from container_manager.executors.output import BoundedOutput, Output, OutputLine
from container_manager.executors.watcher import Watcher

if TYPE_CHECKING:
    from google.cloud import run_v2

    from container_manager.executors.cloudrun_api import CloudRunApi
    from container_manager.executors.cloudrun_logs import CloudRunLogs

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0
"""Seconds between two looks at something that is about to happen."""

MOST_LISTED = 5000
"""Executions that one look reads at most: the region may have many that are not ours."""

EXHAUSTED_FOR = 30.0
"""Seconds for which a quota that was used up counts as such."""

SETTLE = 5.0
"""An execution may be listed a little after it was started."""

DEADLINE_EXCEEDED = 4
KILLED = 128
OUT_OF_MEMORY = re.compile(r"out.of.memory|memory limit", re.IGNORECASE)
NO_LOGS = "Cloud Run keeps it in Cloud Logging; to read it there, install container-manager[cloudrun-logs]."


class CloudRunExecutor(ContainerExecutor):
    """Runs containers in one region of one project."""

    def __init__(self, settings: ExecutorSettings) -> None:
        super().__init__(settings)
        self._config = CloudRunConfig.model_validate(settings.config)
        self._api: CloudRunApi | None = None
        self._logs: CloudRunLogs | None = None
        self._opening: asyncio.Task[CloudRunApi] | None = None
        self._opening_logs, self._listing = asyncio.Lock(), asyncio.Lock()
        self._watcher = Watcher(self._alive, self._config.poll_seconds)
        # By job: the name of its execution, once it is known.
        self._names: dict[str, str] = {}
        self._never_ran: set[str] = set()
        self._listed_at, self._listed = 0.0, list[OwnedExecution]()
        # As the last list has it, and what was started and has ended since.
        self._running: set[str] = set()
        self._exhausted_at = -EXHAUSTED_FOR
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

    async def create(self, spec: LaunchSpec, tell: Tell = lambda _: None) -> str:  # noqa: ARG002 - takes no time
        api, job_id = await self._open(), f"{spec.name}-{secrets.token_hex(4)}"
        job = api.template(spec, self.settings.instance)
        if not await self._counted(api.create_job(job_id, job, self.settings.launch_timeout)):
            await self._until_ready(job_id)
        return job_id

    async def _until_ready(self, job_id: str) -> None:
        """Wait until what was created can be started; it is checked only then."""
        api, deadline, pause = await self._open(), time.monotonic() + self.settings.launch_timeout, FIRST_PAUSE
        while (job := await self._counted(api.get_job(job_id, self.settings.call_timeout))) is None or job.reconciling:
            if time.monotonic() > deadline:
                raise ExecutorOperationError(f"host {self.settings.name}: {job_id} has not become ready in time.")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)
        if job.terminal_condition.state.name == "CONDITION_FAILED":
            with suppress(ExecutorError):  # the reconciler removes it else
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
        if any(_job_of(found) == execution.id for found in newest):
            return True
        return False if execution.id in self._never_ran else None

    # -------------------------------------------------------------- looking

    async def find(self, spec: LaunchSpec) -> ExecutionStatus | None:
        owned = await self.list_owned()
        mine = [found for found in owned if (found.job_id, found.attempt) == (spec.job_id, spec.attempt)]
        # One that has been started comes before one that was only created.
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
        """The name of the job's execution; "" when it has none, None when there is no such job."""
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
        state = _state(found)
        status = ExecutionStatus(job_id, state, started_at=_moment(found.start_time))
        if state is not ExecutionState.EXITED:
            return status
        status = replace(status, finished_at=_moment(found.completion_time))
        completed = next((condition for condition in found.conditions if condition.type_ == "Completed"), None)
        if completed is not None and completed.state.name == "CONDITION_SUCCEEDED":
            return replace(status, exit_code=0)
        said = (completed.message if completed is not None else "") or "Cloud Run gives no reason."
        never_ran = replace(status, interrupted=True, error=f"It ended before it was started: {said}")
        if _is_cancelled(found):
            cancelled = replace(status, error="It was cancelled in Cloud Run, and not by this service.")
            return replace(cancelled if found.start_time else never_ran, cancelled=True)
        api = await self._open()
        task = await self._counted(api.first_task(found.name, self.settings.call_timeout))
        result = task.last_attempt_result if task is not None else None
        if result is None or not (result.exit_code or result.term_signal or result.status.code):
            return replace(status, error=said) if found.start_time else never_ran
        return replace(
            status,
            # 0 is also what an exit code is that was not set.
            exit_code=result.exit_code or (KILLED + result.term_signal if result.term_signal else None),
            timed_out=result.status.code == DEADLINE_EXCEEDED,
            out_of_memory=bool(OUT_OF_MEMORY.search(f"{said} {result.status.message}")),
            error="" if result.exit_code or result.term_signal else said,
        )

    async def wait(self, execution: Execution, seen: ExecutionState = ExecutionState.RUNNING) -> ExecutionStatus | None:
        return await self._watcher.wait(execution.id, seen, lambda: self.status(execution))

    async def _alive(self, wanted: Collection[str]) -> Mapping[str, ExecutionState]:
        """The states of what has not ended, by one list for all of them."""
        api = await self._open()
        missing = set(wanted)

        def enough(found: "list[run_v2.Execution]") -> bool:
            missing.difference_update(map(_job_of, found))
            # Those that are not among the newest are looked at one by one.
            return not missing or len(found) > MOST_LISTED

        found = await self._counted(api.list_executions(enough, self.settings.launch_timeout))
        states = {_job_of(execution): _state(execution) for execution in found}
        return {job_id: state for job_id, state in states.items() if state is not ExecutionState.EXITED}

    async def list_owned(self) -> list[OwnedExecution]:
        asked = time.monotonic()
        async with self._listing:
            # Those who ask while one list is under way share the next one.
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
            logger.warning("job %s carries our label and not whose it is", name)
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
                    return found is not None and _is_cancelled(found)
            except ExecutorClosedError:
                raise
            except (ExecutorConnectionError, ExecutorResourceError) as error:
                # The call may have had its effect all the same: the next look tells.
                logger.info("stopping %s: %s", execution.spec.name, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)
        raise ExecutorConnectionError(f"host {self.settings.name}: {execution.spec.name} has not ended in time.")

    async def remove(self, execution_id: str) -> None:
        api = await self._open()
        job = await self._counted(api.delete_job(execution_id, self.settings.launch_timeout))
        self._forget(execution_id)
        if job is not None and job.name and not job.execution_count and not job.latest_created_execution.name:
            if len(self._never_ran) > MOST_LISTED:
                # Who removes asks at once, if at all.
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
        """The call's answer; that a quota is used up is remembered."""
        try:
            return await call
        except ExecutorResourceError:
            self._exhausted_at = time.monotonic()
            raise

    async def _open(self) -> "CloudRunApi":
        if self._closed:
            raise self._hung_up()
        if self._api is not None:
            return self._api
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect())
        opening = self._opening
        try:
            # To look for credentials may take longer than who asks has time; the next one finds what came of it.
            return await asyncio.shield(opening)
        except asyncio.CancelledError as error:
            if opening.cancelled() and self._closed:
                raise self._hung_up() from error
            raise
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None

    async def _connect(self) -> "CloudRunApi":
        # Google's libraries take a second to load, which others must not wait for.
        module = await asyncio.to_thread(importlib.import_module, "container_manager.executors.cloudrun_api")
        api: CloudRunApi = await module.open_api(self.settings.name, self._config)
        self._api = api
        return api

    async def _open_logs(self) -> "CloudRunLogs":
        await self._open()
        async with self._opening_logs:
            if self._logs is None:
                try:
                    module = await asyncio.to_thread(
                        importlib.import_module, "container_manager.executors.cloudrun_logs"
                    )
                except ImportError as error:
                    raise ExecutorOperationError(NO_LOGS) from error
                logs: CloudRunLogs = await module.open_logs(
                    self.settings.name, self._config, self.settings.output_limit
                )
                if self._closed:
                    await logs.aclose()
                    raise self._hung_up()
                self._logs = logs
        return self._logs

    async def aclose(self) -> None:
        self._closed = True
        await self._watcher.aclose()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        for connection in (self._api, self._logs):
            if connection is not None:
                await connection.aclose()
        self._api = self._logs = None


def _job_of(execution: "run_v2.Execution") -> str:
    return execution.job.rsplit("/", 1)[-1] or execution.name.rsplit("/executions/", 1)[0].rsplit("/", 1)[-1]


def _state(execution: "run_v2.Execution") -> ExecutionState:
    if execution.completion_time:
        return ExecutionState.EXITED
    runs = execution.start_time or execution.running_count
    return ExecutionState.RUNNING if runs else ExecutionState.STARTING


def _moment(at: datetime | None) -> datetime | None:
    # The library's own kind of datetime is not for keeping.
    return None if at is None else datetime.fromtimestamp(at.timestamp(), UTC)


def _is_cancelled(execution: "run_v2.Execution") -> bool:
    reasons = {condition.execution_reason.name for condition in execution.conditions if condition.type_ == "Completed"}
    return "CANCELLED" in reasons or bool(execution.cancelled_count)
