"""Docker engines, through aiodocker."""

import asyncio
import base64
import json
import logging
import os
import re
import ssl
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker import Docker, DockerError
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
    Tell,
)
from container_manager.executors.configs import TLS, DockerConfig
from container_manager.executors.exceptions import (
    ExecutorAuthenticationError,
    ExecutorClosedError,
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorHostError,
    ExecutorOperationError,
)
from container_manager.executors.frames import Frames
from container_manager.executors.images import registry_of
from container_manager.executors.output import BoundedOutput, Output, OutputLine
from container_manager.executors.watcher import Watcher

logger = logging.getLogger(__name__)

UNREACHABLE = 900
"""aiodocker's status for an engine that it could not reach."""

MEBIBYTE, MEGABYTE = 1024 * 1024, 1_000_000
NANO = 1_000_000_000
NANO_PER_MILLI = 1_000_000
SMALLEST_MEMORY = 6 * MEBIBYTE
ALREADY_STOPPED = 304
NAME_LOOKUPS, NAME_LOOKUP_PAUSE = 40, 0.05
COMMAND_FAILED = {126, 127}
SIGNALS = {137: "9", 143: "15"}
"""The exit codes that a signal leaves, and its number."""

MOST_ASKING = 4
"""How many ends may be looked up at once in what the engine remembers; each is a few hundred events to read."""

TOLD_WITHIN = 0.2
KILLED_THERE = "It was killed on its host, and not by this service."

EVENTS_KEPT, TOLD_MEANWHILE = 256, 64
"""The engine remembers that many events, and none from before it was started; of those, so many may be newer than what
we have asked for."""

LOOK_EVERY = 15.0
"""Seconds between two lists of what runs, which repair what the event stream has not told."""

MOST_CALLS = 50
"""Calls about single containers that may be under way at once; more would only queue in the engine."""

MOST_READING = 20
"""Outputs that may be read at once, however long they are."""

INIT_FAILED = "[FATAL tini"
STATES = {"created": ExecutionState.CREATED, "exited": ExecutionState.EXITED, "dead": ExecutionState.EXITED}
HOSTS_FAULT = re.compile(r"bind source path does not exist|invalid mount config|network \S+ not found", re.IGNORECASE)
"""What a host's config has promised and its engine does not have."""

JOBS_FAULT = re.compile(
    r"unable to find (user|group)|uids and gids must be|is not a directory|cannot be mounted because|destination can't"
)
"""What an engine calls an error of its own, although the job asked for it."""

NOBODYS_FAULT = "no such file or directory"
"""What an engine that was killed meanwhile says too, and then calls an error of the job: it looks for the words of the
command in the message, and finds "sh" in "shim"."""

NO_CREDENTIALS = re.compile(r"unauthorized|no basic auth credentials|access denied|denied:|forbidden", re.IGNORECASE)
NO_IMAGE = re.compile(r"not found|manifest unknown|no such image|does not exist|invalid reference", re.IGNORECASE)


class DockerExecutor(ContainerExecutor):
    """Runs containers on one Docker engine."""

    def __init__(self, settings: ExecutorSettings) -> None:
        super().__init__(settings)
        self._config = DockerConfig.model_validate(settings.config)
        self._docker: Docker | None = None
        self._connecting = asyncio.Lock()
        self._under_way: set[asyncio.Timeout] = set()
        self._calls, self._reading = asyncio.Semaphore(MOST_CALLS), asyncio.Semaphore(MOST_READING)
        self._asking = asyncio.Semaphore(MOST_ASKING)
        self._watcher = Watcher(self._alive, LOOK_EVERY, self._ends)
        self._closed = False

    @property
    def max_launches(self) -> int:
        return self._config.max_launches

    async def health_check(self) -> bool:
        # With a wedged containerd, ping and list still answer and a launch hangs, as /info does.
        async with self._call("asking for /info", self.settings.call_timeout) as docker:
            await docker.system.info()
        async with self._call("listing containers", self.settings.call_timeout) as docker:
            await docker.containers.list(all=True, limit=1, filters=self._own_filter())
        return True

    async def get_capacity_info(self) -> dict[str, Any]:
        async with self._call("asking for /info", self.settings.call_timeout) as docker:
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

    async def create(self, spec: LaunchSpec, tell: Tell = lambda _: None) -> str:
        self._refuse_what_is_not_allowed(spec)
        if self._config.pull == "always":
            await self._pull(spec.image, tell)
        try:
            return await self._create(spec)
        except _MissingImageError as missing:
            if self._config.pull == "never":
                raise ExecutorConfigurationError(
                    f"image: {spec.image!r} is not on host {self.settings.name}, whose config.pull is never."
                ) from missing
        await self._pull(spec.image, tell)
        return await self._create(spec)

    def _refuse_what_is_not_allowed(self, spec: LaunchSpec) -> None:
        # Routing has checked it; the host's settings may have been changed since.
        name, allow = self.settings.name, self._config.allow
        if spec.user and not allow.user:
            raise ExecutorConfigurationError(f"user: host {name} does not let jobs choose one (config.allow.user).")
        if spec.network and spec.network not in {self._config.network, *allow.networks}:
            raise ExecutorConfigurationError(
                f"network: host {name} does not let jobs use {spec.network!r} (config.allow.networks)."
            )

    async def start(self, execution: Execution) -> ExecutionState:
        try:
            async with self._call(f"starting {execution.spec.name}", self.settings.launch_timeout) as docker:
                await docker.containers.container(execution.id).start()
        except ExecutorOperationError as error:
            raise self._blamed(error, "The container could not be started") from error
        return ExecutionState.RUNNING

    async def find(self, spec: LaunchSpec) -> ExecutionStatus | None:
        return await self._inspect(spec.name)

    async def status(self, execution: Execution) -> ExecutionStatus | None:
        return await self._inspect(execution.id)

    async def explain(self, execution: Execution, status: ExecutionStatus) -> ExecutionStatus:
        if not status.exit_code or status.out_of_memory:
            return status
        if status.exit_code in COMMAND_FAILED:
            # The engine could run its init but that could not run the command, and says so on stderr.
            with suppress(ExecutorError):  # the verdict does not depend on it
                for line in await self.logs(execution):
                    if line.text.startswith(INIT_FAILED):
                        return replace(status, error=f"command: {line.text.partition('] ')[2] or line.text}.")
        # One that is ending what it runs before it ends itself takes no new connections any more.
        async with self._asking:
            async with self._call("connecting anew", self.settings.call_timeout):
                await _disconnect(await self._open())
            history, keeps_running = await self._history()
        # It remembers so many events and none from before it was started; when it has forgotten some, nobody can tell.
        forgotten = len(history) < EVENTS_KEPT - TOLD_MEANWHILE and not _tells(history, status.id, "start")
        if (forgotten or status.started_at is None) and not keeps_running:
            return self._ended_by_restart(status)
        if status.exit_code in SIGNALS:
            if not any(_tells(history, status.id, action) for action in ("kill", "oom")):
                # The engine tells of a signal a little after what it did.
                await asyncio.sleep(TOLD_WITHIN)
                history, _ = await self._history()
            if _tells(history, status.id, "oom"):
                # Told after the end, it is not in the container's state.
                return replace(status, out_of_memory=True)
            if _tells(history, status.id, "kill", SIGNALS[status.exit_code]):
                return replace(status, error=KILLED_THERE)
        return status

    async def wait(self, execution: Execution, seen: ExecutionState = ExecutionState.RUNNING) -> ExecutionStatus | None:
        return await self._watcher.wait(execution.id, seen, lambda: self.status(execution))

    async def _ends(self) -> AsyncGenerator[str, None]:
        """The ids of our containers that end, as the engine's events tell it; first "", once it listens."""
        filters = {"type": ["container"], "event": ["die"], **self._own_filter()}
        # aiodocker's own events are shared, unbounded, and leak their connection when the engine ends.
        async with self._stream("events", "listening to events", {"filters": json.dumps(filters)}) as stream:
            yield ""
            while line := await stream.line():
                yield json.loads(line)["Actor"]["ID"]

    async def _alive(self, _: Collection[str]) -> dict[str, ExecutionState]:
        return {owned.id: owned.state for owned in await self.list_owned() if owned.state is not ExecutionState.EXITED}

    async def _history(self) -> tuple[list[dict[str, Any]], bool]:
        """The events that the engine remembers, oldest first; and whether containers outlive it."""
        doing, patience = "asking for past events", self.settings.call_timeout
        async with self._call(doing, patience) as docker:
            info = await docker.system.info()
        params = {"since": 1, "until": f"{_moment_of(info['SystemTime']).timestamp():.6f}"}
        async with self._stream("events", doing, params, patience) as stream:
            told = await stream.rest()
        return [json.loads(line) for line in told.splitlines()], bool(info.get("LiveRestoreEnabled"))

    async def has_run(self, execution: Execution) -> bool | None:
        history, _ = await self._history()
        if _tells(history, execution.id, "start"):
            return True
        return False if _tells(history, execution.id, "create") else None

    async def logs(self, execution: Execution) -> Output:
        output = BoundedOutput(self.settings.output_limit)
        # A deadline for each piece: the whole takes as long as there is to read.
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
        self, execution: Execution, patience: float | None, **wishes: int | str
    ) -> AsyncGenerator[list[OutputLine], None]:
        # A quarter of what is kept, so that one line does not push out all others.
        frames = Frames(self.settings.output_limit // 4)
        wishes = {"stdout": 1, "stderr": 1, "timestamps": 1, **wishes}
        doing = f"reading the output of {execution.spec.name}"
        # aiodocker's own reader merges the streams and leaks its connection when it is left early.
        async with self._stream(f"containers/{execution.id}/logs", doing, wishes, patience) as stream:
            while piece := await stream.piece():
                yield frames.feed(piece)
                # What has come already is given without waiting; others must have their turn.
                await asyncio.sleep(0)
            yield frames.rest()

    async def stop(self, execution: Execution, grace: float) -> bool:
        try:
            doing, patience = f"stopping {execution.spec.name}", grace + self.settings.launch_timeout
            path = f"containers/{execution.id}/stop"
            # aiodocker's stop hides that the container had stopped by itself (304).
            async with self._stream(path, doing, {"t": round(grace)}, patience, method="POST") as stream:
                return stream.response.status != ALREADY_STOPPED
        except ExecutorOperationError as error:
            if _status_of(error) != 404:
                raise
            return False

    async def remove(self, execution_id: str) -> None:
        try:
            doing = f"removing {execution_id[:12]}"
            async with self._calls, self._call(doing, self.settings.launch_timeout) as docker:
                await docker.containers.container(execution_id).delete(v=True)
        except ExecutorOperationError as error:
            if _status_of(error) != 404 and "already in progress" not in str(error):
                raise

    async def list_owned(self) -> list[OwnedExecution]:
        async with self._call("listing containers", self.settings.call_timeout) as docker:
            containers = await docker.containers.list(all=True, filters=self._own_filter())
        return [owned for container in containers if (owned := _owned(container)) is not None]

    async def aclose(self) -> None:
        # What is under way would wait for ever on a closed connection.
        self._closed = True
        await self._watcher.aclose()
        for scope in self._under_way:
            with suppress(RuntimeError):  # one that is over already
                scope.reschedule(0)
        docker, self._docker = self._docker, None
        if docker is not None:
            await _disconnect(docker)

    def _own_filter(self) -> dict[str, list[str]]:
        return {"label": [f"{LABEL}.instance={self.settings.instance}"]}

    async def _create(self, spec: LaunchSpec) -> str:
        settings = container_settings(spec, self._config, self.settings.instance)
        try:
            async with self._call(f"creating {spec.name}", self.settings.launch_timeout) as docker:
                container = await docker.containers.create(settings, name=spec.name)
                return container.id
        except ExecutorOperationError as error:
            status = _status_of(error)
            if status == 404 and "image" in str(error).lower():
                raise _MissingImageError(str(error)) from error
            if status == 409:
                return await self._named(spec)
            raise self._blamed(error, "The engine refused the container") from error

    def _blamed(self, error: ExecutorOperationError, what: str) -> ExecutorError:
        """The error as the host's, the job's, or, when neither is certain, as a failure of the engine."""
        text = str(error)
        if HOSTS_FAULT.search(text):
            return ExecutorHostError(f"host {self.settings.name}: {what}: {text}")
        if "No command specified" in text:
            return ExecutorConfigurationError(
                "command: the image has none of its own; give a command or an entryPoint."
            )
        refused = _status_of(error) in {400, 404} and NOBODYS_FAULT not in text
        if refused or JOBS_FAULT.search(text):
            return ExecutorConfigurationError(f"{what}: {text}")
        return ExecutorOperationError(text)

    async def _named(self, spec: LaunchSpec) -> str:
        # The name is taken before the container can be looked up by it.
        for _ in range(NAME_LOOKUPS):
            found = await self.find(spec)
            if found is not None and found.state is not ExecutionState.CREATED:
                # Not ours: ours is looked for before it is created.
                raise ExecutorOperationError(f"host {self.settings.name} has another container named {spec.name}.")
            if found is not None:
                return found.id
            await asyncio.sleep(NAME_LOOKUP_PAUSE)
        raise ExecutorConnectionError(f"host {self.settings.name}: {spec.name} exists and cannot be found.")

    async def _pull(self, image: str, tell: Tell) -> None:
        registry = registry_of(image)
        login = self._config.registry_auth.get(registry)
        headers = {} if login is None else {"X-Registry-Auth": _registry_header(login.username, login.password)}
        began, layers = time.monotonic(), _Layers(image, self.settings.name)
        tell(str(layers))
        try:
            # aiodocker's pull leaks its connection when it is cancelled.
            async with (
                self._call(f"pulling {image}", self.settings.pull_timeout),
                self._stream(
                    "images/create", f"pulling {image}", {"fromImage": _with_tag(image)}, headers=headers, method="POST"
                ) as stream,
            ):
                while step := await stream.line():
                    if "error" in (progress := json.loads(step)):
                        raise DockerError(500, progress["error"])
                    if layers.hear(progress):
                        tell(str(layers))
            tell(f"Pulled image {image!r} to host {self.settings.name} in {time.monotonic() - began:.1f} s.")
        except ExecutorClosedError:
            raise
        except ExecutorConnectionError as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise
            # A slow registry is not a silent engine.
            seconds = self.settings.pull_timeout
            raise ExecutorOperationError(f"image: pulling {image!r} took longer than {seconds:g} s.") from error
        except ExecutorOperationError as error:
            host = self.settings.name
            if NO_CREDENTIALS.search(str(error)):
                raise ExecutorAuthenticationError(
                    f"image: registry {registry} refused host {host} the image {image!r}; it may be private or not "
                    f"exist. Set config.registry_auth for {registry} ({error})."
                ) from error
            if _status_of(error) == 404 or NO_IMAGE.search(str(error)):
                raise ExecutorConfigurationError(f"image: {image!r} does not exist in {registry} ({error}).") from error
            raise ExecutorOperationError(f"image: host {host} could not pull {image!r}: {error}") from error

    async def _inspect(self, reference: str) -> ExecutionStatus | None:
        try:
            async with self._calls, self._call(f"inspecting {reference[:64]}", self.settings.launch_timeout) as docker:
                container = await docker.containers.get(reference)
                status = _verdict(container["Id"], container["State"])
                # An engine that was killed during a start hears of it late, and may have missed the end by then.
                doubtful = status.state is ExecutionState.RUNNING and status.started_at is None
                if doubtful and not await _has_processes(container):
                    return self._ended_by_restart(replace(status, state=ExecutionState.EXITED))
                return status
        except ExecutorOperationError as error:
            if _status_of(error) == 404:
                return None
            raise

    def _ended_by_restart(self, status: ExecutionStatus) -> ExecutionStatus:
        why = f"The engine of host {self.settings.name} was started again, which ended the container."
        return replace(status, interrupted=True, error=why)

    @asynccontextmanager
    async def _call(self, doing: str, deadline: float | None) -> AsyncIterator[Docker]:
        """The client, with a deadline over the block, and errors as this module's callers know them."""
        where = f"host {self.settings.name}"
        try:
            async with asyncio.timeout(deadline) as scope:
                self._under_way.add(scope)
                try:
                    yield await self._client()
                finally:
                    self._under_way.discard(scope)
        except DockerError as error:
            if error.status == UNREACHABLE:
                why = _reason(error)
                raise ExecutorConnectionError(f"{where}: {self._config.url} cannot be reached: {why}.") from error
            raise ExecutorOperationError(error.message) from error
        except TimeoutError as error:
            if self._closed:
                raise ExecutorClosedError(f"{where}: its settings were changed while {doing}.") from error
            within = "" if deadline is None else f" in {deadline:g} s"
            raise ExecutorConnectionError(f"{where}: no answer{within} while {doing}.") from error
        except (aiohttp.ClientError, EOFError, OSError, json.JSONDecodeError) as error:
            raise ExecutorConnectionError(f"{where}: the connection broke while {doing}.") from error

    @asynccontextmanager
    async def _stream(
        self,
        path: str,
        doing: str,
        params: Mapping[str, Any],
        patience: float | None = None,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator["_Stream"]:
        """An answer that is read piece by piece, each within `patience`; its connection is closed at the end."""
        async with self._call(doing, patience) as docker:
            response = await docker._do_query(path, method, params=params, headers=headers, timeout=None)  # noqa: SLF001
        try:
            yield _Stream(response, lambda: self._call(doing, patience))
        finally:
            response.close()

    async def _client(self) -> Docker:
        if self._docker is not None:
            return self._docker
        async with self._connecting:
            if self._docker is None:
                docker = await self._open()
                if self._closed:
                    await _disconnect(docker)
                    raise self._hung_up()
                self._docker = docker
        return self._docker

    async def _open(self) -> Docker:
        """A client whose engine has answered."""
        docker = _connect(self._config)
        try:
            async with asyncio.timeout(self.settings.call_timeout):
                async with docker._query("_ping", versioned_api=False) as response:  # noqa: SLF001
                    docker.api_version = f"v{response.headers['Api-Version']}"
        except (ValueError, KeyError) as error:
            await _disconnect(docker)
            raise ExecutorHostError(f"config.url: {self._config.url!r} is not a Docker engine's address.") from error
        except BaseException:
            await _disconnect(docker)
            raise
        return docker


class _Stream:
    """An answer that has begun."""

    def __init__(
        self, response: aiohttp.ClientResponse, call: Callable[[], AbstractAsyncContextManager[Docker]]
    ) -> None:
        self.response = response
        self._call = call

    async def piece(self) -> bytes:
        """What has come, or b"" at the end."""
        async with self._call():
            return await self.response.content.readany()

    async def rest(self) -> bytes:
        """All of it."""
        async with self._call():
            return await self.response.read()

    async def line(self) -> bytes:
        """The next line, or b"" at the end."""
        async with self._call():
            return await self.response.content.readline()


class _MissingImageError(Exception):
    """The engine does not have the image."""


class _Layers:
    """What an engine tells of a pull, in a sentence."""

    def __init__(self, image: str, host: str) -> None:
        self._doing = f"Pulling image {image!r} to host {host}"
        self._bytes: dict[str, tuple[int, int]] = {}
        self._done: set[str] = set()

    def hear(self, step: Mapping[str, Any]) -> bool:
        """Take a step of the engine's report; whether it says anything new."""
        layer, detail = step.get("id", ""), step.get("progressDetail") or {}
        if step.get("status") == "Downloading" and "total" in detail:
            self._bytes[layer] = (detail["current"], detail["total"])
        elif step.get("status") in {"Pull complete", "Already exists"}:
            self._done.add(layer)
            self._bytes[layer] = (self._bytes.get(layer, (0, 0))[1],) * 2
        elif step.get("status") == "Pulling fs layer":
            self._bytes.setdefault(layer, (0, 0))
        else:
            return False
        return True

    def __str__(self) -> str:
        if not self._bytes:
            return f"{self._doing}."
        got, total = (sum(column) / MEGABYTE for column in zip(*self._bytes.values(), strict=True))
        return f"{self._doing}: {len(self._done)} of {len(self._bytes)} layers, {got:.0f} of {total:.0f} MB."


def container_settings(spec: LaunchSpec, config: DockerConfig, instance: str) -> dict[str, Any]:
    """The engine's settings for a container: bounded, without privileges, and labelled as ours."""
    memory = max(spec.memory_mb * MEBIBYTE, SMALLEST_MEMORY)
    settings: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in spec.variables.items()],
        "Labels": {
            f"{LABEL}.instance": instance,
            f"{LABEL}.job": str(spec.job_id),
            f"{LABEL}.attempt": str(spec.attempt),
            f"{LABEL}.memory-mb": str(spec.memory_mb),
            f"{LABEL}.cpu-millis": str(spec.cpu_millis),
        },
        "HostConfig": {
            "NetworkMode": spec.network or config.network,
            "Memory": memory,
            # The same as Memory: without it a container gets as much again in swap.
            "MemorySwap": memory,
            "NanoCpus": spec.cpu_millis * NANO_PER_MILLI,
            "PidsLimit": 512,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "RestartPolicy": {"Name": "no"},
            # Whatever the engine's own choice is, this one can be read back.
            "LogConfig": {"Type": "json-file"},
            # Forwards TERM, so that a job which ignores signals as pid 1 still stops in time.
            "Init": True,
        },
    }
    wishes = {
        "Entrypoint": list(spec.entry_point),
        "Cmd": list(spec.command),
        "WorkingDir": spec.working_dir,
        "User": spec.user,
    }
    more = {
        "ReadonlyRootfs": spec.read_only_root,
        "Tmpfs": {path: f"size={size}m" for path, size in spec.tmpfs.items()},
        "Mounts": [
            {"Type": "bind", "Source": mount.source, "Target": path, "ReadOnly": mount.read_only}
            for path, mount in config.mounts.items()
        ],
    }
    settings["HostConfig"] |= {name: value for name, value in more.items() if value}
    return settings | {name: value for name, value in wishes.items() if value}


def _tells(history: list[dict[str, Any]], container_id: str, action: str, signal: str = "") -> bool:
    return any(
        event["Actor"]["ID"] == container_id
        and event["Action"] == action
        and (not signal or event["Actor"]["Attributes"].get("signal") == signal)
        for event in history
    )


async def _has_processes(container: DockerContainer) -> bool:
    try:
        return bool((await container.top())["Processes"])
    except DockerError as error:
        # Any other refusal proves nothing: a host need not have ps.
        return error.status != 404


def _owned(container: DockerContainer) -> OwnedExecution | None:
    labels, state = container["Labels"], STATES.get(container["State"], ExecutionState.RUNNING)
    try:
        return OwnedExecution(container.id, int(labels[f"{LABEL}.job"]), int(labels[f"{LABEL}.attempt"]), state)
    except (KeyError, ValueError):
        logger.warning("container %s carries our label and not whose it is", container.id)
        return None


async def _disconnect(docker: Docker) -> None:
    await docker.close()
    await docker.connector.close()


def _connect(config: DockerConfig) -> Docker:
    url = config.url.rstrip("/")
    if url.startswith("unix://"):
        connector: aiohttp.BaseConnector = aiohttp.UnixConnector(url.removeprefix("unix://"), limit=0)
        return Docker("unix://localhost", connector=connector)
    context = None if config.tls is None else _ssl_context(config.tls)
    if context is not None:
        # aiodocker talks plain HTTP to tcp:// whatever the context.
        url = re.sub(r"^\w+://", "https://", url)
    elif url.startswith("tcp://"):
        url = url.replace("tcp://", "http://", 1)
    return Docker(url, connector=aiohttp.TCPConnector(ssl=context if context is not None else True, limit=0))


def _ssl_context(tls: TLS) -> ssl.SSLContext:
    """Raises ExecutorHostError when the PEM texts or paths are no good."""
    ca, cert, key = [_pem(getattr(tls, name), name) for name in ("ca", "cert", "key")]
    try:
        context = ssl.create_default_context(cadata=ca or None)
        if not tls.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if cert:
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(f"{cert}\n{key}\n")
                file.flush()
                context.load_cert_chain(file.name)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ExecutorHostError(f"config.tls: the certificates cannot be used: {error}.") from error
    return context


def _pem(value: str, name: str) -> str:
    """The PEM text, read from a file on the server when `value` is a path."""
    if not value or value.lstrip().startswith("-----BEGIN"):
        return value
    try:
        return Path(value).read_text()
    except (OSError, ValueError) as error:
        raise ExecutorHostError(f"config.tls.{name}: {value!r} cannot be read: {error}.") from error


def _reason(error: BaseException) -> str:
    """Why an address cannot be reached, in the system's words."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for link in chain:
        if isinstance(link, ssl.SSLError) and not isinstance(link, aiohttp.ClientError):
            return f"TLS: {getattr(link, 'verify_message', '') or link.reason or link}"
    for link in chain:
        if isinstance(link, OSError) and link.errno:
            return os.strerror(link.errno) if link.errno > 0 else str(link.strerror)
    return "no connection"


def _status_of(error: ExecutorOperationError) -> int:
    return error.__cause__.status if isinstance(error.__cause__, DockerError) else 0


def _verdict(container_id: str, state: Mapping[str, Any]) -> ExecutionStatus:
    kind = STATES.get(state["Status"], ExecutionState.RUNNING)
    if kind is ExecutionState.CREATED and _moment(state["FinishedAt"]):
        # So an engine calls what has ended when it does not know since when it ran.
        kind = ExecutionState.EXITED
    return ExecutionStatus(
        container_id,
        kind,
        exit_code=state["ExitCode"] if kind is ExecutionState.EXITED else None,
        started_at=_moment(state["StartedAt"]),
        finished_at=_moment(state["FinishedAt"]) if kind is ExecutionState.EXITED else None,
        out_of_memory=bool(state.get("OOMKilled")),
        error=state.get("Error", ""),
    )


def _moment(text: str) -> datetime | None:
    return None if text.startswith("0001-") else _moment_of(text)


def _moment_of(text: str) -> datetime:
    # Python reads at most microseconds.
    return datetime.fromisoformat(re.sub(r"\.(\d{6})\d*", r".\1", text))


def _with_tag(image: str) -> str:
    # Without a tag the engine would pull every tag there is.
    return image if "@" in image or ":" in image.rsplit("/", 1)[-1] else f"{image}:latest"


def _registry_header(username: str, password: str) -> str:
    return base64.urlsafe_b64encode(json.dumps({"username": username, "password": password}).encode()).decode()
