"""Pulling an image, with progress."""

import base64
import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiodocker import DockerError

from container_manager.aio import Slots
from container_manager.domain.image import registry_of
from container_manager.executors.base import ExecutorSettings, LaunchSpec, Report
from container_manager.executors.configs import DockerConfig
from container_manager.executors.docker.client import EngineClient
from container_manager.executors.docker.errors import NO_REFERENCE, pull_error, status_of
from container_manager.executors.exceptions import (
    ExecutorClosedError,
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorImageError,
    ExecutorLackError,
    ExecutorOperationError,
)

MEGABYTE = 1_000_000
MOST_LAYERS, LONGEST_ID = 1000, 100
"""What is kept of an engine's report: eight times as many layers as an image of Docker can have."""


async def pull(
    client: EngineClient, settings: ExecutorSettings, config: DockerConfig, image: str, report: Report
) -> None:
    """Let the engine pull the image; `report` is called with the progress.

    Raises:
        ExecutorConfigurationError: the image does not exist.
        ExecutorAuthenticationError: the registry refuses the image.
        ExecutorImageError: the pull failed or took longer than `settings.pull_timeout`.
        ExecutorConnectionError: the engine does not answer.
    """
    registry = registry_of(image)
    login = config.registry_auth.get(registry)
    headers = {} if login is None else {"X-Registry-Auth": _registry_header(login.username, login.password)}
    doing, wishes = f"pulling {image}", {"fromImage": with_tag(image)}
    async with client.call("connecting", settings.call_timeout):
        # From here on only the registry can be slow.
        began, layers = time.monotonic(), Layers(image, settings.name)
    report(str(layers))
    try:
        # aiodocker's own pull leaks its connection when it is cancelled.
        async with (
            client.call(doing, settings.pull_timeout),
            client.stream("images/create", doing, wishes, headers=headers, method="POST") as stream,
        ):
            while step := await stream.line():
                if "error" in (progress := json.loads(step)):
                    raise DockerError(500, progress["error"])
                if layers.update(progress):
                    report(str(layers))
        report(f"Pulled image {image!r} to host {settings.name} in {time.monotonic() - began:.1f} s.")
    except ExecutorClosedError:
        raise
    except ExecutorConnectionError as error:
        if not isinstance(error.__cause__, TimeoutError):
            raise
        # The engine answers, but the registry is slow.
        message = f"image: pulling {image!r} took longer than {settings.pull_timeout:g} s."
        raise ExecutorImageError(message) from error
    except ExecutorOperationError as error:
        raise pull_error(error, settings.name, image, registry) from error


class Images:
    """The images of one engine. Pulls have a limit of their own; an image that is there is never waited for."""

    def __init__(self, client: EngineClient, settings: ExecutorSettings, config: DockerConfig) -> None:
        self._client, self._settings, self._config = client, settings, config
        self._pulls = Slots(config.max_pulls)

    async def prepare(self, spec: LaunchSpec, report: Report) -> None:
        """Have the image on the engine, by the host's policy.

        Raises:
            ExecutorError: as `pull`.
        """
        if self._config.pull == "always" or not await self._is_there(spec.image):
            await self.pull(spec, report)

    async def pull(self, spec: LaunchSpec, report: Report) -> None:
        """Pull the image when it is its turn, by the priority of its job.

        Raises:
            ExecutorLackError: the host pulls no images.
            ExecutorError: as the function `pull`.
        """
        image, host, most = spec.image, self._settings.name, self._config.max_pulls
        if self._config.pull == "never":
            raise ExecutorLackError(f"image: {image!r} is not on host {host}, whose config.pull is never.")
        registry = registry_of(image)
        if self._config.registries is not None and registry not in self._config.registries:
            raise ExecutorLackError(
                f"image: {image!r} is of registry {registry}, which is not one of config.registries of host {host}."
            )
        if self._pulls.locked():
            report(f"Waits to pull image {image!r}: host {host} pulls at most {most} images at once.")
        turn = self._pulls.turn(spec.priority)
        try:
            await turn
            await pull(self._client, self._settings, self._config, image, report)
        finally:
            self._pulls.give_back(turn)

    async def _is_there(self, image: str) -> bool:
        try:
            async with self._client.call(f"looking for {image}", self._settings.launch_timeout) as docker:
                await docker.images.inspect(image)
        except ExecutorOperationError as error:
            if status_of(error) == HTTPStatus.NOT_FOUND:
                return False
            if status_of(error) == HTTPStatus.BAD_REQUEST or NO_REFERENCE in str(error):
                raise ExecutorConfigurationError(f"image: the engine refused {image!r}: {error}") from error
            raise
        return True


class Layers:
    """The progress of a pull as a sentence."""

    def __init__(self, image: str, host: str) -> None:
        self._doing = f"Pulling image {image!r} to host {host}"
        self._bytes: dict[str, tuple[int, int]] = {}
        self._done: set[str] = set()
        self._got = self._total = 0

    def update(self, step: Mapping[str, Any]) -> bool:
        """Take one step of the engine's report; returns whether it changes the sentence."""
        layer, detail = str(step.get("id", ""))[:LONGEST_ID], step.get("progressDetail") or {}
        if layer not in self._bytes and len(self._bytes) >= MOST_LAYERS:
            return False
        if step.get("status") == "Downloading" and "total" in detail:
            self._set(layer, detail["current"], detail["total"])
        elif step.get("status") in {"Pull complete", "Already exists"}:
            self._done.add(layer)
            _, total = self._bytes.get(layer, (0, 0))
            self._set(layer, total, total)
        elif step.get("status") == "Pulling fs layer":
            self._bytes.setdefault(layer, (0, 0))
        else:
            return False
        return True

    def _set(self, layer: str, got: int, total: int) -> None:
        before = self._bytes.get(layer, (0, 0))
        self._bytes[layer] = (got, total)
        self._got += got - before[0]
        self._total += total - before[1]

    def __str__(self) -> str:
        if not self._bytes:
            return f"{self._doing}."
        got, total = self._got / MEGABYTE, self._total / MEGABYTE
        return f"{self._doing}: {len(self._done)} of {len(self._bytes)} layers, {got:.0f} of {total:.0f} MB."


def with_tag(image: str) -> str:
    """The image reference with a tag: without one the engine would pull every tag of the repository."""
    return image if "@" in image or ":" in image.rsplit("/", 1)[-1] else f"{image}:latest"


def _registry_header(username: str, password: str) -> str:
    return base64.urlsafe_b64encode(json.dumps({"username": username, "password": password}).encode()).decode()
