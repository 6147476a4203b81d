"""The executor of Docker engines, through aiodocker."""

import asyncio
import json
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

from aiodocker import DockerError
from aiodocker.containers import DockerContainer

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
from container_manager.executors.configs import DockerConfig
from container_manager.executors.docker.client import EngineClient
from container_manager.executors.docker.errors import launch_error, status_of
from container_manager.executors.docker.frames import Frames
from container_manager.executors.docker.pull import pull
from container_manager.executors.docker.settings import MEBIBYTE, container_settings
from container_manager.executors.docker.status import has_event, owned_execution, parse_time, status_of_container
from container_manager.executors.exceptions import (
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorOperationError,
)
from container_manager.executors.output import BoundedOutput, Output, OutputLine
from container_manager.executors.watcher import Watcher

NANO = 1_000_000_000
ALREADY_STOPPED = 304
NAME_LOOKUPS, NAME_LOOKUP_PAUSE = 40, 0.05
COMMAND_FAILED = {126, 127}
SIGNALS = {137: "9", 143: "15"}
"""By exit code, the number of the signal that causes it."""

INIT_FAILED = "[FATAL tini"
KILLED_OUTSIDE = "It was killed on its host, and not by this service."

EVENTS_KEPT, EVENTS_MEANWHILE = 256, 64
"""An engine remembers this many events, and none from before its start. We allow for this many after the one that is
looked up."""

EVENT_DELAY = 0.2
"""Seconds after which an engine has reported the signal that ended a container."""

LOOK_EVERY = 15.0
"""Seconds between two lists of running containers, which find ends that the event stream has missed."""

MOST_CALLS = 50
"""Calls about single containers that may be in progress; more would only queue inside the engine."""

MOST_READING = 20
"""Outputs that may be read at once, whatever their length."""

MOST_HISTORIES = 4
"""Ends that may be looked up in the engine's history at once; each reads a few hundred events."""


class DockerExecutor(ContainerExecutor):
    """Runs containers on one Docker engine."""

    def __init__(self, settings: ExecutorSettings) -> None:
        super().__init__(settings)
        self._config = DockerConfig.model_validate(settings.config)
        self._client = EngineClient(settings.name, self._config, settings.call_timeout)
        self._calls, self._reading = asyncio.Semaphore(MOST_CALLS), asyncio.Semaphore(MOST_READING)
        self._histories = asyncio.Semaphore(MOST_HISTORIES)
        self.watcher = Watcher(self._alive, LOOK_EVERY, self._ends)

    @property
    def max_launches(self) -> int:
        return self._config.max_launches

    async def aclose(self) -> None:
        self._client.refuse_calls()
        await self.watcher.aclose()
        await self._client.aclose()

    # -------------------------------------------------------------- health

    async def health_check(self) -> bool:
        # With a wedged containerd, ping and list still answer, but a launch hangs, and so does /info.
        async with self._client.call("asking for /info", self.settings.call_timeout) as docker:
            await docker.system.info()
        async with self._client.call("listing containers", self.settings.call_timeout) as docker:
            await docker.containers.list(all=True, limit=1, filters=self._own_filter())
        return True

    async def get_capacity_info(self) -> dict[str, Any]:
        async with self._client.call("asking for /info", self.settings.call_timeout) as docker:
            info = await docker.system.info()
        owned = await self.list_owned()
        current = sum(execution.state is ExecutionState.RUNNING for execution in owned)
        return {
            "max_jobs": self.settings.max_jobs,
            "current_jobs": current,
            "available_slots": max(self.settings.max_jobs - current, 0),
            "memory_mb": info["MemTotal"] // MEBIBYTE,
            "cpu_cores": float(info["NCPU"]),
        }

    # -------------------------------------------------------------- launching

    async def create(self, spec: LaunchSpec, report: Report = lambda _: None) -> str:
        self._check_grants(spec)
        if self._config.pull == "always":
            await self._pull(spec.image, report)
        try:
            return await self._create(spec)
        except _MissingImageError as missing:
            if self._config.pull == "never":
                raise ExecutorConfigurationError(
                    f"image: {spec.image!r} is not on host {self.settings.name}, whose config.pull is never."
                ) from missing
        await self._pull(spec.image, report)
        return await self._create(spec)

    def _check_grants(self, spec: LaunchSpec) -> None:
        # Routing has checked them, but the host's settings may have changed since.
        name, allow = self.settings.name, self._config.allow
        if spec.user and not allow.user:
            raise ExecutorConfigurationError(f"user: host {name} does not let jobs choose one (config.allow.user).")
        if spec.network and spec.network not in {self._config.network, *allow.networks}:
            raise ExecutorConfigurationError(
                f"network: host {name} does not let jobs use {spec.network!r} (config.allow.networks)."
            )

    async def _pull(self, image: str, report: Report) -> None:
        await pull(self._client, self.settings, self._config, image, report)

    async def _create(self, spec: LaunchSpec) -> str:
        settings = container_settings(spec, self._config, self.settings.instance)
        try:
            async with self._client.call(f"creating {spec.name}", self.settings.launch_timeout) as docker:
                container = await docker.containers.create(settings, name=spec.name)
                return container.id
        except ExecutorOperationError as error:
            status = status_of(error)
            if status == 404 and "image" in str(error).lower():
                raise _MissingImageError(str(error)) from error
            if status == 409:
                return await self._created_before(spec)
            raise launch_error(error, self.settings.name, "The engine refused the container") from error

    async def _created_before(self, spec: LaunchSpec) -> str:
        """The id of the container that an earlier call for this attempt has created under its name."""
        # An engine reserves the name before the container can be found by it.
        for _ in range(NAME_LOOKUPS):
            found = await self.find(spec)
            if found is not None and found.state is not ExecutionState.CREATED:
                # It is not this attempt's, which would have found its own before it created one.
                raise ExecutorOperationError(f"host {self.settings.name} has another container named {spec.name}.")
            if found is not None:
                return found.id
            await asyncio.sleep(NAME_LOOKUP_PAUSE)
        raise ExecutorConnectionError(f"host {self.settings.name}: {spec.name} exists and cannot be found.")

    async def start(self, execution: Execution) -> ExecutionState:
        try:
            doing = f"starting {execution.spec.name}"
            async with self._client.call(doing, self.settings.launch_timeout) as docker:
                await docker.containers.container(execution.id).start()
        except ExecutorOperationError as error:
            raise launch_error(error, self.settings.name, "The container could not be started") from error
        return ExecutionState.RUNNING

    async def has_run(self, execution: Execution) -> bool | None:
        history, _ = await self._history()
        if has_event(history, execution.id, "start"):
            return True
        return False if has_event(history, execution.id, "create") else None

    # -------------------------------------------------------------- watching

    async def find(self, spec: LaunchSpec) -> ExecutionStatus | None:
        return await self._inspect(spec.name)

    async def status(self, execution: Execution) -> ExecutionStatus | None:
        return await self._inspect(execution.id)

    async def _inspect(self, reference: str) -> ExecutionStatus | None:
        try:
            doing = f"inspecting {reference[:64]}"
            async with self._calls, self._client.call(doing, self.settings.launch_timeout) as docker:
                container = await docker.containers.get(reference)
                status = status_of_container(container["Id"], container["State"])
                # An engine that was killed during a start learns of the start late and may have missed the end.
                doubtful = status.state is ExecutionState.RUNNING and status.started_at is None
                if doubtful and not await _has_processes(container):
                    return self._ended_by_restart(replace(status, state=ExecutionState.EXITED))
                return status
        except ExecutorOperationError as error:
            if status_of(error) == 404:
                return None
            raise

    async def wait(self, execution: Execution, seen: ExecutionState = ExecutionState.RUNNING) -> ExecutionStatus | None:
        return await self.watcher.wait(execution.id, seen, lambda: self.status(execution))

    async def _ends(self) -> AsyncGenerator[str, None]:
        """The hints of the watcher, from the engine's events."""
        filters = {"type": ["container"], "event": ["die"], **self._own_filter()}
        # aiodocker's own event channel is shared and unbounded, and leaks its connection when the engine stops.
        params = {"filters": json.dumps(filters)}
        async with self._client.stream("events", "listening to events", params) as stream:
            yield ""
            while line := await stream.line():
                yield json.loads(line)["Actor"]["ID"]

    async def _alive(self, _: Collection[str]) -> dict[str, ExecutionState]:
        return {owned.id: owned.state for owned in await self.list_owned() if owned.state is not ExecutionState.EXITED}

    async def list_owned(self) -> list[OwnedExecution]:
        async with self._client.call("listing containers", self.settings.call_timeout) as docker:
            containers = await docker.containers.list(all=True, filters=self._own_filter())
        return [owned for container in containers if (owned := owned_execution(container)) is not None]

    async def explain(self, execution: Execution, status: ExecutionStatus) -> ExecutionStatus:
        if not status.exit_code or status.out_of_memory:
            return status
        if status.exit_code in COMMAND_FAILED and (why := await self._failed_command(execution)):
            return replace(status, error=why)
        async with self._histories:
            # An engine that is shutting down ends its containers, then accepts no connection. If this one fails, the
            # end is explained after the restart.
            await self._client.check_new_connection()
            history, survives_restarts = await self._history()
        # Whether the engine has restarted is unknown when its history is full and the start has dropped out of it.
        is_forgotten = len(history) < EVENTS_KEPT - EVENTS_MEANWHILE and not has_event(history, status.id, "start")
        if (is_forgotten or status.started_at is None) and not survives_restarts:
            return self._ended_by_restart(status)
        return await self._explain_signal(status, history) if status.exit_code in SIGNALS else status

    async def _failed_command(self, execution: Execution) -> str:
        """Why the container's init process could not run the command, which it says on stderr."""
        with suppress(ExecutorError):  # the verdict does not depend on it
            for line in await self.logs(execution):
                if line.text.startswith(INIT_FAILED):
                    return f"command: {line.text.partition('] ')[2] or line.text}."
        return ""

    async def _explain_signal(self, status: ExecutionStatus, history: list[dict[str, Any]]) -> ExecutionStatus:
        if not any(has_event(history, status.id, action) for action in ("kill", "oom")):
            # The engine reports a signal a little after its effect.
            await asyncio.sleep(EVENT_DELAY)
            history, _ = await self._history()
        if has_event(history, status.id, "oom"):
            # Reported after the end, it is missing in the container's state.
            return replace(status, out_of_memory=True)
        if has_event(history, status.id, "kill", SIGNALS[status.exit_code or 0]):
            return replace(status, error=KILLED_OUTSIDE)
        return status

    async def _history(self) -> tuple[list[dict[str, Any]], bool]:
        """The events that the engine remembers, oldest first; and whether containers survive its restart."""
        doing, patience = "asking for past events", self.settings.call_timeout
        async with self._client.call(doing, patience) as docker:
            info = await docker.system.info()
        params = {"since": 1, "until": f"{parse_time(info['SystemTime']).timestamp():.6f}"}
        async with self._client.stream("events", doing, params, patience) as stream:
            events = await stream.rest()
        return [json.loads(line) for line in events.splitlines()], bool(info.get("LiveRestoreEnabled"))

    def _ended_by_restart(self, status: ExecutionStatus) -> ExecutionStatus:
        why = f"The engine of host {self.settings.name} was restarted, which ended the container."
        return replace(status, interrupted=True, error=why)

    # -------------------------------------------------------------- output

    async def logs(self, execution: Execution) -> Output:
        output = BoundedOutput(self.settings.output_limit)
        # A deadline for each piece, because the whole takes as long as there is to read.
        async with self._reading, aclosing(self._output(execution, self.settings.launch_timeout)) as pieces:
            async for lines in pieces:
                for line in lines:
                    output.add(line)
        return output.kept()

    async def follow(self, execution: Execution, since_ns: int = 0) -> AsyncGenerator[OutputLine, None]:
        since = f"{since_ns // NANO}.{since_ns % NANO:09}"
        async with aclosing(self._output(execution, None, follow=1, since=since)) as pieces:
            async for lines in pieces:
                for line in lines:
                    yield line

    async def _output(
        self, execution: Execution, patience: float | None, **options: int | str
    ) -> AsyncGenerator[list[OutputLine], None]:
        # A line gets at most a quarter of the limit, so that one line does not push out all others.
        frames = Frames(self.settings.output_limit // 4)
        options = {"stdout": 1, "stderr": 1, "timestamps": 1, **options}
        doing = f"reading the output of {execution.spec.name}"
        # aiodocker's own reader merges the two streams and leaks its connection when it is left early.
        async with self._client.stream(f"containers/{execution.id}/logs", doing, options, patience) as stream:
            while piece := await stream.piece():
                yield frames.feed(piece)
                # Pieces that have arrived already are read without waiting, so give other tasks their turn.
                await asyncio.sleep(0)
            yield frames.rest()

    # -------------------------------------------------------------- ending

    async def stop(self, execution: Execution, grace: float) -> bool:
        try:
            doing, patience = f"stopping {execution.spec.name}", grace + self.settings.launch_timeout
            path = f"containers/{execution.id}/stop"
            # aiodocker's own stop hides the answer that the container had stopped before (304).
            async with self._client.stream(path, doing, {"t": round(grace)}, patience, method="POST") as stream:
                return stream.response.status != ALREADY_STOPPED
        except ExecutorOperationError as error:
            if status_of(error) != 404:
                raise
            return False

    async def remove(self, execution_id: str) -> None:
        try:
            doing = f"removing {execution_id[:12]}"
            async with self._calls, self._client.call(doing, self.settings.launch_timeout) as docker:
                await docker.containers.container(execution_id).delete(v=True)
        except ExecutorOperationError as error:
            if status_of(error) != 404 and "already in progress" not in str(error):
                raise

    def _own_filter(self) -> dict[str, list[str]]:
        return {"label": [f"{LABEL}.instance={self.settings.instance}"]}


class _MissingImageError(Exception):
    """The engine does not have the image."""


async def _has_processes(container: DockerContainer) -> bool:
    try:
        return bool((await container.top())["Processes"])
    except DockerError as error:
        # Any other refusal proves nothing: the host may not have ps.
        return error.status != 404
