"""The executor of Docker engines, through aiodocker."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Any, NamedTuple

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
from container_manager.executors.docker.dialect import MEBIBYTE
from container_manager.executors.docker.ends import (
    CREATE,
    ENDS,
    START,
    STARTED_AGAIN,
    WATCHED,
    ended_by_restart,
    has,
    read_event,
)
from container_manager.executors.docker.errors import CPU_RANGE, launch_error, status_of
from container_manager.executors.docker.explain import Explainer
from container_manager.executors.docker.frames import Frames
from container_manager.executors.docker.mounts import check_mounts
from container_manager.executors.docker.pull import Images
from container_manager.executors.docker.settings import attempt_labels, container_settings
from container_manager.executors.docker.status import EngineInfo, engine_id, owned_execution, status_of_container
from container_manager.executors.exceptions import (
    ExecutorError,
    ExecutorImageError,
    ExecutorLackError,
    ExecutorOperationError,
    clean,
)
from container_manager.executors.output import BoundedOutput, Output, OutputLine
from container_manager.executors.watcher import Watcher

NANO = 1_000_000_000
ALREADY_STOPPED = 304

LOOK_EVERY = 15.0
"""Seconds between two lists of running containers, which find ends that the event stream has missed."""

MOST_CALLS = 50
"""Calls about single containers that may be in progress; more would only queue inside the engine."""

MOST_READING = 20
"""Outputs that may be read at once, whatever their length."""

LOOK_IS_FRESH = 1.0
"""Seconds for which what a health check has found also answers how much room there is."""


class Look(NamedTuple):
    """What an engine has said in a health check."""

    info: EngineInfo
    owned: Sequence[OwnedExecution]
    at: float


class DockerExecutor(ContainerExecutor):
    """Runs containers on one Docker engine."""

    def __init__(self, settings: ExecutorSettings) -> None:
        super().__init__(settings)
        self._config = DockerConfig.model_validate(settings.config)
        self._client = EngineClient(settings.name, self._config, settings.call_timeout)
        self._calls, self._reading = asyncio.Semaphore(MOST_CALLS), asyncio.Semaphore(MOST_READING)
        self._images = Images(self._client, settings, self._config)
        self._looked: Look | None = None
        self._explainer = Explainer(settings, self._client)
        self._seen = self._explainer.seen
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
        self._looked = Look(await self._info(), await self.list_owned(), time.monotonic())
        return True

    async def get_capacity_info(self) -> dict[str, Any]:
        # A probe asks for both; an engine that answers slowly is not asked for the same again.
        look, self._looked = self._looked, None
        if look is None or time.monotonic() - look.at > LOOK_IS_FRESH:
            look = Look(await self._info(), await self.list_owned(), time.monotonic())
        dialect = self._client.dialect
        current = sum(execution.state is ExecutionState.RUNNING for execution in look.owned)
        return {
            "max_jobs": self.settings.max_jobs,
            "current_jobs": current,
            "available_slots": max(self.settings.max_jobs - current, 0),
            "memory_mb": look.info.MemTotal // MEBIBYTE,
            "cpu_cores": float(look.info.NCPU),
            "engine": clean(f"{dialect.name} {look.info.ServerVersion}"),
            "engine_id": engine_id(look.info, has_id=dialect.has_id),
        }

    async def _info(self) -> EngineInfo:
        async with self._client.call("asking for /info", self.settings.call_timeout) as docker:
            return EngineInfo.model_validate(await docker.system.info())

    # -------------------------------------------------------------- launching

    @property
    def prepares(self) -> bool:
        return True

    async def prepare(self, spec: LaunchSpec, report: Report = lambda _: None) -> bool:
        self._check_grants(spec)
        await self._images.prepare(spec, report)
        return True

    async def create(self, spec: LaunchSpec, report: Report = lambda _: None) -> str:
        self._check_grants(spec)
        if self._config.mounts and self._client.dialect.needs_mounts_checked:
            labels = attempt_labels(replace(spec, job_id=0)) | {f"{LABEL}.instance": self.settings.instance}
            await check_mounts(self._client, self._config, spec.image, labels, self.settings.launch_timeout)
        try:
            return await self._create(spec)
        except _MissingImageError:
            # It was removed since `prepare`, or that was left out.
            await self._images.pull(spec, report)
        try:
            return await self._create(spec)
        except _MissingImageError as missing:
            raise ExecutorImageError(f"image: {spec.image!r} was removed from the host: {missing}") from missing

    def _check_grants(self, spec: LaunchSpec) -> None:
        # Routing has checked them, but the host's settings may have changed since.
        name, allow = self.settings.name, self._config.allow
        if spec.user and not allow.user:
            raise ExecutorLackError(f"user: host {name} does not let jobs choose one (config.allow.user).")
        if spec.network and spec.network not in {self._config.network, *allow.networks}:
            raise ExecutorLackError(
                f"network: host {name} does not let jobs use {spec.network!r} (config.allow.networks)."
            )

    async def _create(self, spec: LaunchSpec) -> str:
        # A name that no other call uses: what has it was created by this very call.
        name = f"{spec.name}-{secrets.token_hex(4)}"
        try:
            async with self._client.call(f"creating {name}", self.settings.launch_timeout) as docker:
                settings = container_settings(spec, self._config, self.settings.instance, docker.dialect)
                try:
                    container = await docker.containers.create(settings, name=name)
                except DockerError as error:
                    if (found := CPU_RANGE.search(error.message)) is None:
                        raise
                    # The host is said to have more cores than it has; more than all of them cannot be had.
                    settings["HostConfig"]["NanoCpus"] = int(float(found[1]) * NANO)
                    container = await docker.containers.create(settings, name=name)
                return container.id
        except ExecutorOperationError as error:
            if status_of(error) == HTTPStatus.NOT_FOUND and "image" in str(error).lower():
                raise _MissingImageError(str(error)) from error
            raise self._launch_error(error, spec, "The engine refused the container") from error

    def _launch_error(self, error: ExecutorOperationError, spec: LaunchSpec, what: str) -> ExecutorError:
        chosen = spec.network if spec.network != self._config.network else ""
        return launch_error(error, self.settings.name, what, chosen)

    async def start(self, execution: Execution) -> ExecutionState:
        try:
            doing = f"starting {execution.spec.name}"
            async with self._client.call(doing, self.settings.launch_timeout) as docker:
                await docker.containers.container(execution.id).start()
        except ExecutorOperationError as error:
            raise self._launch_error(error, execution.spec, "The container could not be started") from error
        return ExecutionState.RUNNING

    async def has_run(self, execution: Execution) -> bool | None:
        try:
            events = (await self._explainer.history(execution.id)).of(execution.id)
        except ExecutorOperationError:
            return None
        if has(events, START):
            return True
        return False if has(events, CREATE) else None

    # -------------------------------------------------------------- watching

    async def find(self, spec: LaunchSpec) -> ExecutionStatus | None:
        async with self._client.call("listing containers", self.settings.call_timeout) as docker:
            found = await docker.containers.list(all=True, filters=self._own_filter(**attempt_labels(spec)))
        return await self._inspect(found[0].id) if found else None

    async def status(self, execution: Execution) -> ExecutionStatus | None:
        status = await self._inspect(execution.id)
        return None if status is None else self._seen.first_run(status)

    async def recall(self, execution: Execution) -> None:
        await self._explainer.recall(execution.id)

    async def _inspect(self, reference: str) -> ExecutionStatus | None:
        try:
            doing = f"inspecting {reference[:64]}"
            async with self._calls, self._client.call(doing, self.settings.launch_timeout) as docker:
                container = await docker.containers.get(reference)
                status = status_of_container(container["Id"], container["State"])
                # An engine that was killed during a start learns of the start late and may have missed the end.
                doubtful = status.state is ExecutionState.RUNNING and status.started_at is None
                if doubtful and not await _has_processes(container):
                    return ended_by_restart(self.settings.name, replace(status, state=ExecutionState.EXITED))
                return status
        except ExecutorOperationError as error:
            if status_of(error) == 404:
                return None
            raise

    async def wait(self, execution: Execution, seen: ExecutionState = ExecutionState.RUNNING) -> ExecutionStatus | None:
        return await self.watcher.wait(execution.id, seen, lambda: self.status(execution))

    async def _ends(self) -> AsyncGenerator[str, None]:
        """The hints of the watcher, from the engine's events."""
        filters = {"type": ["container"], "event": WATCHED, **self._own_filter()}
        # aiodocker's own event channel is shared and unbounded, and leaks its connection when the engine stops.
        params = {"filters": json.dumps(filters)}
        async with self._client.stream("events", "listening to events", params) as stream:
            yield ""
            while line := await stream.line():
                event = read_event(line)
                if event is not None:
                    self._seen.add(event)
                    if event.action in ENDS:
                        yield event.container

    async def _alive(self, _: Collection[str]) -> dict[str, ExecutionState]:
        return {owned.id: owned.state for owned in await self.list_owned() if owned.state is not ExecutionState.EXITED}

    async def list_owned(self) -> list[OwnedExecution]:
        async with self._client.call("listing containers", self.settings.call_timeout) as docker:
            containers = await docker.containers.list(all=True, filters=self._own_filter())
        return [owned for container in containers if (owned := owned_execution(container)) is not None]

    async def explain(self, execution: Execution, status: ExecutionStatus) -> ExecutionStatus:
        if status.error == STARTED_AGAIN:
            return status
        if status.started_at is None or status.finished_at is None:
            # It is called ended, without the times of it, after its engine or its machine was killed.
            return ended_by_restart(self.settings.name, status)
        is_suspect = status.exit_code in self._client.dialect.command_failed
        if is_suspect and (why := await self._failed_command(execution)):
            return replace(status, error=why)
        return await self._explainer.explain(status)

    async def _failed_command(self, execution: Execution) -> str:
        """Why the container's init process could not run the command, which it says on stderr."""
        with suppress(ExecutorError):  # the verdict does not depend on it
            for line in await self.logs(execution):
                if line.stream == "stderr" and (found := self._client.dialect.init_error.fullmatch(line.text)):
                    return f"command: {found[1]}."
        return ""

    # -------------------------------------------------------------- output

    async def logs(self, execution: Execution) -> Output:
        output, frames = BoundedOutput(self.settings.output_limit), self._frames()
        # A deadline for each piece, because the whole takes as long as there is to read.
        async with self._reading, aclosing(self._output(execution, self.settings.launch_timeout, frames)) as pieces:
            async for lines in pieces:
                for line in lines:
                    output.add(line)
        kept, dialect = output.kept(), self._client.dialect
        if kept and frames.stored >= dialect.most_without_loss:
            most = dialect.log_files * dialect.log_file // MEBIBYTE
            note = f"[container-manager: the host keeps {most} MiB of output; lines before this one may be missing]"
            return Output.of([OutputLine("stderr", next(iter(kept)).at_ns, note), *kept])
        return kept

    def _frames(self) -> Frames:
        # A line gets at most a quarter of the limit, so that one line does not push out all others.
        return Frames(self.settings.output_limit // 4)

    async def follow(self, execution: Execution, since_ns: int = 0) -> AsyncGenerator[OutputLine, None]:
        since = f"{since_ns // NANO}.{since_ns % NANO:09}"
        async with aclosing(self._output(execution, None, self._frames(), follow=1, since=since)) as pieces:
            async for lines in pieces:
                for line in lines:
                    yield line

    async def _output(
        self, execution: Execution, patience: float | None, frames: Frames, **options: int | str
    ) -> AsyncGenerator[list[OutputLine], None]:
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
        self._seen.forget(execution_id)
        try:
            doing = f"removing {execution_id[:12]}"
            async with self._calls, self._client.call(doing, self.settings.launch_timeout) as docker:
                await docker.containers.container(execution_id).delete(v=True)
        except ExecutorOperationError as error:
            if status_of(error) != 404 and "already in progress" not in str(error):
                raise

    def _own_filter(self, **labels: str) -> dict[str, list[str]]:
        labels[f"{LABEL}.instance"] = self.settings.instance
        return {"label": [f"{name}={value}" for name, value in labels.items()]}


class _MissingImageError(Exception):
    """The engine does not have the image."""


async def _has_processes(container: DockerContainer) -> bool:
    try:
        return bool((await container.top())["Processes"])
    except DockerError as error:
        # Any other refusal proves nothing: the host may not have ps.
        return error.status != 404
