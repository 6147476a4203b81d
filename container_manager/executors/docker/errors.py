"""What an engine's errors mean: whose settings are wrong, and why an engine cannot be reached."""

import json
import os
import re
import ssl
from contextlib import suppress
from http import HTTPStatus

import aiohttp
from aiodocker import DockerError

from container_manager.executors.exceptions import (
    ExecutorAuthenticationError,
    ExecutorConfigurationError,
    ExecutorError,
    ExecutorHostError,
    ExecutorImageError,
    ExecutorLackError,
    ExecutorOperationError,
    ExecutorPlatformError,
    ExecutorPullQuotaError,
    clean,
)

UNREACHABLE = 900
"""The status that aiodocker gives for an engine that cannot be reached."""

HOST_ERROR = re.compile(
    r"bind source path does not exist|invalid mount config|docker-init|no space left on device", re.IGNORECASE
)
"""The host's config names something that its engine does not have, or the engine itself lacks what it needs."""

NO_NETWORK = re.compile(r"network \S+ not found|unable to find network", re.IGNORECASE)

JOB_ERROR = re.compile(
    r"unable to find (user|group)|uids and gids must be|is not a directory|cannot be mounted because|destination can't"
    r"|invalid reference format"
)
"""The job asks for something impossible, although the engine reports an internal error."""

CPU_RANGE = re.compile(r"range of CPUs is from [\d.]+ to ([\d.]+)", re.IGNORECASE)
"""A refusal that says how many cores the engine has."""

PAGE = re.compile(r"\s*<")
TAG = re.compile(r"<style.*?</style>|<[^>]*>", re.DOTALL | re.IGNORECASE)
LONGEST_READ = 10_000
"""Characters of an engine's error that are looked at."""

AMBIGUOUS = "no such file or directory"
"""Also reported by an engine that is killed during a start. It then blames the job by mistake: it finds the word of the
command, such as "sh", in the "shim" of the message."""

TOO_MANY = re.compile(r"toomanyrequests|too many requests|pull rate limit", re.IGNORECASE)
NO_PLATFORM = re.compile(
    r"no matching manifest|no image found in (manifest list|image index)|does not match the specified platform",
    re.IGNORECASE,
)
NO_CREDENTIALS = re.compile(
    r"unauthorized|no basic auth credentials|access denied|(?<!permission )denied\b|forbidden|authentication required",
    re.IGNORECASE,
)
NO_REFERENCE = "invalid reference format"
NO_IMAGE = re.compile(r"not found|manifest unknown|no such image|does not exist|invalid reference", re.IGNORECASE)


def status_of(error: ExecutorOperationError) -> int:
    """The HTTP status of the engine's answer; 0 when the error does not come from an answer."""
    return error.__cause__.status if isinstance(error.__cause__, DockerError) else 0


def words_of(error: DockerError) -> str:
    """What the engine, or a proxy before it, says, as one line of text."""
    # Cut first: it may be very long, and its tags then take too long to find.
    text = str(error.message)[:LONGEST_READ]
    with suppress(ValueError):
        # aiodocker reads JSON only when its type is written in one way.
        told = json.loads(text)
        text = str(told["message"]) if isinstance(told, dict) and "message" in told else ""
    return clean(TAG.sub(" ", text)) or f"the engine answered with status {error.status}"


def is_page(error: ExecutorOperationError) -> bool:
    """Whether the answer is a page: that of a proxy, because no engine answers so."""
    return isinstance(error.__cause__, DockerError) and PAGE.match(str(error.__cause__.message)) is not None


def launch_error(error: ExecutorOperationError, host_name: str, what: str, network: str = "") -> ExecutorError:
    """The cause of a refused create or start: the host's settings, the job, or, if neither is certain, the engine.

    `network`: the network that the job has chosen, if it is not the host's own.
    """
    text = str(error)
    if NO_NETWORK.search(text) and network and network in text:
        return ExecutorLackError(f"host {host_name}: {what}: {text}")
    if NO_NETWORK.search(text) or HOST_ERROR.search(text):
        return ExecutorHostError(f"host {host_name}: {what}: {text}")
    if "No command specified" in text:
        return ExecutorConfigurationError("command: the image has none of its own; give a command or an entryPoint.")
    refused = status_of(error) in {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND} and not is_page(error)
    if (refused and AMBIGUOUS not in text) or JOB_ERROR.search(text):
        return ExecutorConfigurationError(f"{what}: {text}")
    return ExecutorOperationError(f"host {host_name}: {what}: {text}")


def pull_error(error: ExecutorOperationError, host_name: str, image: str, registry: str) -> ExecutorError:
    """Why an image cannot be pulled: a quota, credentials, no such image, or another failure."""
    text = str(error)
    if TOO_MANY.search(text):
        return ExecutorPullQuotaError(
            f"image: {image!r} cannot be pulled for a while: registry {registry} lets host {host_name} pull no more "
            f"({text})."
        )
    if NO_PLATFORM.search(text):
        return ExecutorPlatformError(f"image: {image!r} does not exist for the platform of host {host_name} ({text}).")
    if NO_CREDENTIALS.search(text):
        return ExecutorAuthenticationError(
            f"image: registry {registry} refused host {host_name} the image {image!r}; it may be private or not "
            f"exist. Set config.registry_auth for {registry} ({text})."
        )
    if status_of(error) == HTTPStatus.NOT_FOUND or NO_IMAGE.search(text):
        return ExecutorConfigurationError(f"image: {image!r} does not exist in {registry} ({text}).")
    return ExecutorImageError(f"image: host {host_name} could not pull {image!r}: {text}")


def reason_of(error: BaseException) -> str:
    """Why an address cannot be reached, in the words of the system or of TLS."""
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
