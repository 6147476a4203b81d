"""An executor that runs each job as a process of this machine, without a container: it ignores the image.

It keeps what it knows in memory, so its jobs do not outlive a restart of the service.
"""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from container_manager.executors import base, exceptions
from container_manager.executors.base import Execution, ExecutionState, ExecutionStatus, LaunchSpec
from container_manager.executors.configs import Settings
from container_manager.executors.output import BoundedOutput, Output, OutputLine


@dataclass
class Run:
    spec: LaunchSpec
    status: ExecutionStatus
    process: asyncio.subprocess.Process | None = None
    watching: asyncio.Task[None] | None = None
    lines: list[OutputLine] = field(default_factory=list)


class ProcessExecutor(base.ContainerExecutor):
    class Config(Settings):
        folder: str = "."  # where the processes start

    offers_everything = True

    def __init__(self, settings: base.ExecutorSettings) -> None:
        super().__init__(settings)
        self._folder = self.Config.model_validate(settings.config).folder
        self._runs: dict[str, Run] = {}
        self._has_run: dict[str, bool] = {}

    async def health_check(self) -> bool:
        if not await asyncio.to_thread(os.path.isdir, self._folder):
            raise exceptions.ExecutorConnectionError(f"config.folder: there is no folder {self._folder}.")
        return True

    async def get_capacity_info(self) -> dict[str, Any]:
        current = sum(run.status.state is ExecutionState.RUNNING for run in self._runs.values())
        most = self.settings.max_jobs
        return {"max_jobs": most, "current_jobs": current, "available_slots": most - current}

    async def create(self, spec: LaunchSpec, report: base.Report = lambda _: None) -> str:
        name = f"{spec.name}-{uuid.uuid4().hex[:8]}"
        self._runs[name], self._has_run[name] = Run(spec, ExecutionStatus(name, ExecutionState.CREATED)), False
        return name

    async def start(self, execution: Execution) -> ExecutionState:
        run = self._runs[execution.id]
        command, environment = [*run.spec.entry_point, *run.spec.command], {**os.environ, **run.spec.variables}
        with suppress(IndexError):
            run.process = await asyncio.create_subprocess_exec(
                *command, env=environment, cwd=self._folder, stdout=-1, stderr=-1, start_new_session=True
            )
        if run.process is None:
            raise exceptions.ExecutorConfigurationError("command: a process needs one.")
        self._has_run[execution.id] = True
        run.status = replace(run.status, state=ExecutionState.RUNNING, started_at=datetime.now(UTC))
        run.watching = asyncio.create_task(self._watch(run, run.process))
        return run.status.state

    async def _watch(self, run: Run, process: asyncio.subprocess.Process) -> None:
        async def read(stream: str, pipe: Any) -> None:
            async for line in pipe:
                run.lines.append(OutputLine(stream, time.time_ns(), line.decode(errors="replace").rstrip("\n")))

        await asyncio.gather(read("stdout", process.stdout), read("stderr", process.stderr))
        code, state = await process.wait(), ExecutionState.EXITED
        exit_code = code if code >= 0 else 128 - code
        run.status = replace(run.status, state=state, exit_code=exit_code, finished_at=datetime.now(UTC))

    async def find(self, spec: LaunchSpec) -> ExecutionStatus | None:
        return next((run.status for run in self._runs.values() if run.spec.name == spec.name), None)

    async def status(self, execution: Execution) -> ExecutionStatus | None:
        return self._runs[execution.id].status if execution.id in self._runs else None

    async def wait(self, execution: Execution, seen: ExecutionState = ExecutionState.RUNNING) -> ExecutionStatus | None:
        while (status := await self.status(execution)) and status.state is seen:
            await asyncio.sleep(0.02)
        return status

    async def logs(self, execution: Execution) -> Output:
        output = BoundedOutput(self.settings.output_limit)
        for line in self._runs[execution.id].lines:
            output.add(line)
        return output.kept()

    async def follow(self, execution: Execution, since_ns: int = 0) -> AsyncGenerator[OutputLine, None]:
        run, shown = self._runs[execution.id], 0
        while shown < len(run.lines) or run.status.state is not ExecutionState.EXITED:
            new = run.lines[shown:]
            shown += len(new)
            for line in new:
                if line.at_ns >= since_ns:
                    yield line
            await asyncio.sleep(0.02)

    async def has_run(self, execution: Execution) -> bool | None:
        return self._has_run.get(execution.id)

    async def stop(self, execution: Execution, grace: float) -> bool:
        status, run = await self.status(execution), self._runs.get(execution.id)
        if run is None or run.process is None or status is None or status.state is ExecutionState.EXITED:
            return False
        for number, seconds in ((15, grace), (9, 10)):
            with suppress(ProcessLookupError, TimeoutError):
                os.killpg(run.process.pid, number)
                await asyncio.wait_for(self.wait(execution), seconds)
        return True

    async def remove(self, execution_id: str) -> None:
        self._runs.pop(execution_id, None)

    async def list_owned(self) -> list[base.OwnedExecution]:
        runs = self._runs.items()
        return [base.OwnedExecution(name, run.spec.job_id, run.spec.attempt, run.status.state) for name, run in runs]
