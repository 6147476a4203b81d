"""The simulator: an executor that runs nothing, for demonstrations, load and tests.

The id of an execution contains its start time, duration and exit code, from which its state follows. So a simulated job
survives a restart of the service as a real one does.
"""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from typing import Any

from container_manager.executors.base import (
    ContainerExecutor,
    Execution,
    ExecutionState,
    ExecutionStatus,
    ExecutorSettings,
    LaunchSpec,
    OwnedExecution,
    Report,
)
from container_manager.executors.configs import SimulatedConfig
from container_manager.executors.exceptions import (
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorOperationError,
)
from container_manager.executors.output import BoundedOutput, Output, OutputLine

_ID = re.compile(r"sim-(?P<name>.+)-(?P<start>\d+)-(?P<run>\d+)-(?P<exit>\d+)")
STOPPED_BY_SIGNAL = 143
LONGEST_SLEEP = 10_000_000


class SimulatedExecutor(ContainerExecutor):
    """Behaves as its config says; a job's command may say `sleep S`, `echo TEXT` and `exit N`, joined by `;`."""

    def __init__(self, settings: ExecutorSettings) -> None:
        super().__init__(settings)
        self._config = SimulatedConfig.model_validate(settings.config)
        self._created: dict[str, Execution] = {}
        self._stopped_ms: dict[str, int] = {}
        self._followers: Counter[str] = Counter()
        self._removed: set[str] = set()
        """Removed executions that are still followed."""

    @property
    def max_launches(self) -> int:
        return 1000

    async def health_check(self) -> bool:
        await asyncio.sleep(self._config.health_ms / 1000)
        if not self._config.healthy:
            raise ExecutorConnectionError("The simulated host is configured to be unhealthy (config.healthy).")
        return True

    async def get_capacity_info(self) -> dict[str, Any]:
        current = sum(owned.state is ExecutionState.RUNNING for owned in await self.list_owned())
        limit = self.settings.max_jobs
        return {"max_jobs": limit, "current_jobs": current, "available_slots": max(limit - current, 0)}

    async def create(self, spec: LaunchSpec, report: Report = lambda _: None) -> str:  # noqa: ARG002 - it is quick
        if random.Random(f"{self._config.seed} {spec.name}").random() < self._config.fail_launch:  # noqa: S311
            raise ExecutorOperationError("The simulated launch failed (config.fail_launch).")
        run_ms, exit_code, _ = _plan(spec, self._config)
        start_ms = time.time_ns() // 1_000_000 + self._config.launch_ms
        execution = Execution(f"sim-{spec.name}-{start_ms}-{run_ms}-{exit_code}", spec)
        self._created[execution.id] = execution
        return execution.id

    async def start(self, execution: Execution) -> ExecutionState:
        start_ms, _, _ = _read(execution.id)
        await asyncio.sleep(max(start_ms / 1000 - time.time(), 0))
        return ExecutionState.RUNNING

    async def find(self, spec: LaunchSpec) -> ExecutionStatus | None:
        for execution in self._created.values():
            if execution.spec.name == spec.name:
                return self._status(execution.id)
        return None

    async def status(self, execution: Execution) -> ExecutionStatus | None:
        return self._status(execution.id)

    async def wait(self, execution: Execution, seen: ExecutionState = ExecutionState.RUNNING) -> ExecutionStatus:
        while (status := self._status(execution.id)).state is seen:
            start_ms, run_ms, _ = _read(execution.id)
            # Short steps, so that a stop is noticed; the last step ends at the exact time.
            await asyncio.sleep(min(max((start_ms + run_ms) / 1000 - time.time(), 0.001), 0.05))
        return status

    async def logs(self, execution: Execution) -> Output:
        output = BoundedOutput(self.settings.output_limit)
        stopped = self._stopped_ms.get(execution.id)
        for line in self._lines(execution):
            if stopped is None or line.at_ns <= stopped * 1_000_000:
                output.add(line)
        return output.kept()

    async def follow(self, execution: Execution, since_ns: int = 0) -> AsyncGenerator[OutputLine, None]:
        self._followers[execution.id] += 1
        try:
            for line in self._lines(execution):
                while line.at_ns > time.time_ns():
                    if self._status(execution.id).state is ExecutionState.EXITED:
                        return
                    await asyncio.sleep(min(max(line.at_ns - time.time_ns(), 0) / 1e9, 0.05))
                if line.at_ns >= since_ns:
                    yield line
            await self.wait(execution)
        finally:
            self._followers[execution.id] -= 1
            self._forget_removed(execution.id)

    async def has_run(self, execution: Execution) -> bool:  # noqa: ARG002 - nothing really runs
        return False

    def _lines(self, execution: Execution) -> Iterator[OutputLine]:
        start_ms, _, _ = _read(execution.id)
        for offset_ms, text in _plan(execution.spec, self._config)[2]:
            yield OutputLine("stdout", (start_ms + offset_ms) * 1_000_000, text)

    async def stop(self, execution: Execution, grace: float) -> bool:  # noqa: ARG002 - it stops at once
        if self._status(execution.id).state is ExecutionState.EXITED:
            return False
        self._stopped_ms[execution.id] = time.time_ns() // 1_000_000
        return True

    async def remove(self, execution_id: str) -> None:
        self._created.pop(execution_id, None)
        self._removed.add(execution_id)
        self._forget_removed(execution_id)

    def _forget_removed(self, execution_id: str) -> None:
        # Without the time of its stop, it would count as running, and its followers would wait until its planned end.
        if self._followers[execution_id]:
            return
        del self._followers[execution_id]
        if execution_id in self._removed:
            self._removed.discard(execution_id)
            self._stopped_ms.pop(execution_id, None)

    async def list_owned(self) -> list[OwnedExecution]:
        return [
            OwnedExecution(
                execution.id, execution.spec.job_id, execution.spec.attempt, self._status(execution.id).state
            )
            for execution in self._created.values()
        ]

    def _status(self, execution_id: str) -> ExecutionStatus:
        start_ms, run_ms, exit_code = _read(execution_id)
        end_ms = start_ms + run_ms
        if (stopped := self._stopped_ms.get(execution_id)) is not None and stopped < end_ms:
            end_ms, exit_code = stopped, STOPPED_BY_SIGNAL
        now_ms = time.time_ns() // 1_000_000
        if now_ms < end_ms:
            return ExecutionStatus(execution_id, ExecutionState.RUNNING, started_at=_moment(start_ms))
        return ExecutionStatus(
            execution_id,
            ExecutionState.EXITED,
            exit_code=exit_code,
            started_at=_moment(min(start_ms, end_ms)),
            finished_at=_moment(end_ms),
        )


def _plan(spec: LaunchSpec, config: SimulatedConfig) -> tuple[int, int, list[tuple[int, str]]]:
    """The duration in milliseconds, the exit code, and the lines with the millisecond at which each is written."""
    run_ms, exit_code, lines, slept = 0, config.exit_code, [], False
    script = " ".join(spec.command).removeprefix("sh -c ")
    for step in (part.strip() for part in script.split(";")):
        verb, _, rest = step.partition(" ")
        try:
            if verb == "sleep":
                run_ms, slept = run_ms + _milliseconds(rest), True
            elif verb == "echo":
                lines += [(run_ms, line) for line in rest.splitlines() or [""]]
            elif verb == "exit":
                exit_code = int(rest) & 255
                break
        except ValueError as error:
            raise ExecutorConfigurationError(f"command: the simulated host cannot read {step!r}.") from error
    return (run_ms if slept else config.run_ms), exit_code, lines


def _milliseconds(text: str) -> int:
    seconds = float(text)
    if not 0 <= seconds <= LONGEST_SLEEP:
        raise ValueError(text)
    return round(seconds * 1000)


def _read(execution_id: str) -> tuple[int, int, int]:
    match = _ID.fullmatch(execution_id)
    if match is None:
        raise ExecutorOperationError(f"{execution_id!r} is not an execution of a simulated host.")
    return int(match["start"]), int(match["run"]), int(match["exit"])


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
