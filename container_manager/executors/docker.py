"""Docker engines, through aiodocker."""

import asyncio
import base64
import json
import re
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker import Docker, DockerError

from container_manager.executors.base import (
    ContainerExecutor,
    Execution,
    ExecutionState,
    ExecutionStatus,
    ExecutorSettings,
    LaunchSpec,
    OwnedExecution,
)
from container_manager.executors.configs import TLS, DockerConfig
from container_manager.executors.exceptions import (
    ExecutorAuthenticationError,
    ExecutorClosedError,
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorOperationError,
)
from container_manager.executors.frames import Frames
from container_manager.executors.output import OutputLine

LABEL = "container-manager"
UNREACHABLE = 900
"""aiodocker's status for an engine that it could not reach."""

MEBIBYTE = 1024 * 1024
NANO_PER_MILLI = 1_000_000
SMALLEST_MEMORY = 6 * MEBIBYTE
ALREADY_STOPPED = 304
NAME_LOOKUPS, NAME_LOOKUP_PAUSE = 40, 0.05
COMMAND_FAILED = {126, 127}
INIT_FAILED = "[FATAL tini"
STATES = {"created": ExecutionState.CREATED, "exited": ExecutionState.EXITED, "dead": ExecutionState.EXITED}
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

    async def create(self, spec: LaunchSpec) -> str:
        if self._config.pull == "always":
            await self._pull(spec.image)
        try:
            return await self._create(spec)
        except _MissingImageError as missing:
            if self._config.pull == "never":
                raise ExecutorConfigurationError(
                    f"image: {spec.image!r} is not on host {self.settings.name}, whose config.pull is never."
                ) from missing
        await self._pull(spec.image)
        return await self._create(spec)

    async def start(self, execution: Execution) -> None:
        try:
            async with self._call(f"starting {execution.spec.name}", self.settings.launch_timeout) as docker:
                await docker.containers.container(execution.id).start()
        except ExecutorOperationError as error:
            if _status_of(error) in {400, 404}:
                raise ExecutorConfigurationError(f"The container could not be started: {error}") from error
            raise

    async def find(self, spec: LaunchSpec) -> ExecutionStatus | None:
        return await self._inspect(spec.name)

    async def status(self, execution: Execution) -> ExecutionStatus | None:
        status = await self._inspect(execution.id)
        if status is not None and status.exit_code in COMMAND_FAILED:
            # The engine could run its init but that could not run the command, and says so on stderr.
            with suppress(ExecutorError):  # the verdict does not depend on it
                for line in reversed(await self.logs(execution)):
                    if line.text.startswith(INIT_FAILED):
                        return replace(status, error=f"command: {line.text.partition(') ')[2] or line.text}.")
        return status

    async def wait(self, execution: Execution) -> ExecutionStatus | None:
        try:
            async with self._call(f"waiting for {execution.spec.name}", None) as docker:
                await docker.containers.container(execution.id).wait()
        except ExecutorOperationError as error:
            if _status_of(error) != 404:
                raise
        # The verdict is the engine's record: `wait` says 0 of a container that never ran.
        return await self.status(execution)

    async def logs(self, execution: Execution) -> list[OutputLine]:
        frames = Frames(self.settings.output_limit)
        async with self._call(f"reading the output of {execution.spec.name}", None) as docker:
            # aiodocker's own reader merges the streams and leaks its connection when it is left early.
            async with docker._query(  # noqa: SLF001
                f"containers/{execution.id}/logs", params={"stdout": 1, "stderr": 1, "timestamps": 1}
            ) as response:
                # A deadline for each piece: the whole takes as long as there is to read.
                while chunk := await asyncio.wait_for(response.content.readany(), self.settings.launch_timeout):
                    frames.feed(chunk)
        return frames.lines()

    async def stop(self, execution: Execution, grace: float) -> bool:
        try:
            async with self._call(f"stopping {execution.spec.name}", grace + self.settings.launch_timeout) as docker:
                path = f"containers/{execution.id}/stop"
                # aiodocker's stop hides that the container had stopped by itself (304).
                async with docker._query(path, "POST", params={"t": round(grace)}, timeout=None) as response:  # noqa: SLF001
                    return response.status != ALREADY_STOPPED
        except ExecutorOperationError as error:
            if _status_of(error) != 404:
                raise
            return False

    async def remove(self, execution_id: str) -> None:
        try:
            async with self._call(f"removing {execution_id[:12]}", self.settings.launch_timeout) as docker:
                await docker.containers.container(execution_id).delete(v=True)
        except ExecutorOperationError as error:
            if _status_of(error) != 404 and "already in progress" not in str(error):
                raise

    async def list_owned(self) -> list[OwnedExecution]:
        async with self._call("listing containers", self.settings.call_timeout) as docker:
            containers = await docker.containers.list(all=True, filters=self._own_filter())
        return [
            OwnedExecution(
                container.id,
                int(container["Labels"][f"{LABEL}.job"]),
                int(container["Labels"][f"{LABEL}.attempt"]),
                STATES.get(container["State"], ExecutionState.RUNNING),
            )
            for container in containers
        ]

    async def aclose(self) -> None:
        # What is under way would wait for ever on a closed connection.
        self._closed = True
        for scope in self._under_way:
            with suppress(RuntimeError):  # one that is over already
                scope.reschedule(0)
        docker, self._docker = self._docker, None
        if docker is not None:
            await _disconnect(docker)

    def _own_filter(self) -> dict[str, list[str]]:
        return {"label": [f"{LABEL}.instance={self.settings.instance}"]}

    async def _create(self, spec: LaunchSpec) -> str:
        settings = container_settings(spec, self._config.network, self.settings.instance)
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
            if status in {400, 404}:
                raise ExecutorConfigurationError(f"The engine refused the container: {error}") from error
            raise

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

    async def _pull(self, image: str) -> None:
        registry = _registry(image)
        login = self._config.registry_auth.get(registry)
        headers = {} if login is None else {"X-Registry-Auth": _registry_header(login.username, login.password)}
        try:
            async with self._call(f"pulling {image}", None) as docker, asyncio.timeout(self.settings.pull_timeout):
                async with docker._query(  # noqa: SLF001 - aiodocker's pull leaks its connection when cancelled
                    "images/create", "POST", params={"fromImage": _with_tag(image)}, headers=headers, timeout=None
                ) as response:
                    async for step in response.content:
                        if "error" in (progress := json.loads(step)):
                            raise DockerError(500, progress["error"])
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
            async with self._call(f"inspecting {reference[:64]}", self.settings.launch_timeout) as docker:
                container = await docker.containers.get(reference)
        except ExecutorOperationError as error:
            if _status_of(error) == 404:
                return None
            raise
        return _verdict(container["Id"], container["State"])

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
                raise ExecutorConnectionError(f"{where}: the engine cannot be reached: {error.message}") from error
            raise ExecutorOperationError(error.message) from error
        except TimeoutError as error:
            if self._closed:
                raise ExecutorClosedError(f"{where}: its settings were changed while {doing}.") from error
            within = "" if deadline is None else f" in {deadline:g} s"
            raise ExecutorConnectionError(f"{where}: no answer{within} while {doing}.") from error
        except (aiohttp.ClientError, EOFError, OSError, json.JSONDecodeError) as error:
            raise ExecutorConnectionError(f"{where}: the connection broke while {doing}: {error}") from error

    async def _client(self) -> Docker:
        if self._docker is not None:
            return self._docker
        async with self._connecting:
            if self._docker is None:
                docker = _connect(self._config)
                try:
                    async with asyncio.timeout(self.settings.call_timeout):
                        async with docker._query("_ping", versioned_api=False) as response:  # noqa: SLF001
                            docker.api_version = f"v{response.headers['Api-Version']}"
                except (ValueError, KeyError) as error:
                    await _disconnect(docker)
                    raise ExecutorConfigurationError(
                        f"config.url: {self._config.url!r} is not a Docker engine's address."
                    ) from error
                except BaseException:
                    await _disconnect(docker)
                    raise
                if self._closed:
                    await _disconnect(docker)
                    raise ExecutorClosedError(f"host {self.settings.name}: its settings were changed.")
                self._docker = docker
        return self._docker


class _MissingImageError(Exception):
    """The engine does not have the image."""


def container_settings(spec: LaunchSpec, network: str, instance: str) -> dict[str, Any]:
    """The engine's settings for a container: bounded, without privileges, and labelled as ours."""
    memory = max(spec.memory_mb * MEBIBYTE, SMALLEST_MEMORY)
    settings: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
        "Labels": {
            f"{LABEL}.instance": instance,
            f"{LABEL}.job": str(spec.job_id),
            f"{LABEL}.attempt": str(spec.attempt),
            f"{LABEL}.memory-mb": str(spec.memory_mb),
            f"{LABEL}.cpu-millis": str(spec.cpu_millis),
        },
        "HostConfig": {
            "NetworkMode": network,
            "Memory": memory,
            # The same as Memory: without it a container gets as much again in swap.
            "MemorySwap": memory,
            "NanoCpus": spec.cpu_millis * NANO_PER_MILLI,
            "PidsLimit": 512,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "RestartPolicy": {"Name": "no"},
            # Forwards TERM, so that a job which ignores signals as pid 1 still stops in time.
            "Init": True,
        },
    }
    if spec.command:
        settings["Cmd"] = list(spec.command)
    return settings


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
    """Raises ExecutorConfigurationError when the PEM texts or paths are no good."""
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
        raise ExecutorConfigurationError(f"config.tls: the certificates cannot be used: {error}.") from error
    return context


def _pem(value: str, name: str) -> str:
    """The PEM text, read from a file on the server when `value` is a path."""
    if not value or value.lstrip().startswith("-----BEGIN"):
        return value
    try:
        return Path(value).read_text()
    except (OSError, ValueError) as error:
        raise ExecutorConfigurationError(f"config.tls.{name}: {value!r} cannot be read: {error}.") from error


def _status_of(error: ExecutorOperationError) -> int:
    return error.__cause__.status if isinstance(error.__cause__, DockerError) else 0


def _verdict(container_id: str, state: Mapping[str, Any]) -> ExecutionStatus:
    kind = STATES.get(state["Status"], ExecutionState.RUNNING)
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
    if text.startswith("0001-"):
        return None
    # Python reads at most microseconds.
    return datetime.fromisoformat(re.sub(r"\.(\d{6})\d*", r".\1", text))


def _with_tag(image: str) -> str:
    # Without a tag the engine would pull every tag there is.
    return image if "@" in image or ":" in image.rsplit("/", 1)[-1] else f"{image}:latest"


def _registry(image: str) -> str:
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def _registry_header(username: str, password: str) -> str:
    return base64.urlsafe_b64encode(json.dumps({"username": username, "password": password}).encode()).decode()
