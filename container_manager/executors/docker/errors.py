"""What an engine's errors mean: whose settings are wrong, and why an engine cannot be reached."""

import os
import re
import ssl

import aiohttp
from aiodocker import DockerError

from container_manager.executors.exceptions import (
    ExecutorAuthenticationError,
    ExecutorConfigurationError,
    ExecutorError,
    ExecutorHostError,
    ExecutorOperationError,
)

UNREACHABLE = 900
"""The status that aiodocker gives for an engine that cannot be reached."""

HOST_ERROR = re.compile(r"bind source path does not exist|invalid mount config|network \S+ not found", re.IGNORECASE)
"""The host's config names something that its engine does not have."""

JOB_ERROR = re.compile(
    r"unable to find (user|group)|uids and gids must be|is not a directory|cannot be mounted because|destination can't"
)
"""The job asks for something impossible, although the engine reports an internal error."""

AMBIGUOUS = "no such file or directory"
"""Also reported by an engine that is killed during a start. It then blames the job by mistake: it finds the word of the
command, such as "sh", in the "shim" of the message."""

NO_CREDENTIALS = re.compile(r"unauthorized|no basic auth credentials|access denied|denied:|forbidden", re.IGNORECASE)
NO_IMAGE = re.compile(r"not found|manifest unknown|no such image|does not exist|invalid reference", re.IGNORECASE)


def status_of(error: ExecutorOperationError) -> int:
    """The HTTP status of the engine's answer; 0 when the error does not come from an answer."""
    return error.__cause__.status if isinstance(error.__cause__, DockerError) else 0


def launch_error(error: ExecutorOperationError, host_name: str, what: str) -> ExecutorError:
    """The cause of a refused create or start: the host's settings, the job, or, if neither is certain, the engine."""
    text = str(error)
    if HOST_ERROR.search(text):
        return ExecutorHostError(f"host {host_name}: {what}: {text}")
    if "No command specified" in text:
        return ExecutorConfigurationError("command: the image has none of its own; give a command or an entryPoint.")
    refused = status_of(error) in {400, 404} and AMBIGUOUS not in text
    if refused or JOB_ERROR.search(text):
        return ExecutorConfigurationError(f"{what}: {text}")
    return ExecutorOperationError(text)


def pull_error(error: ExecutorOperationError, host_name: str, image: str, registry: str) -> ExecutorError:
    """Why an image cannot be pulled: credentials, no such image, or another failure."""
    if NO_CREDENTIALS.search(str(error)):
        return ExecutorAuthenticationError(
            f"image: registry {registry} refused host {host_name} the image {image!r}; it may be private or not "
            f"exist. Set config.registry_auth for {registry} ({error})."
        )
    if status_of(error) == 404 or NO_IMAGE.search(str(error)):
        return ExecutorConfigurationError(f"image: {image!r} does not exist in {registry} ({error}).")
    return ExecutorOperationError(f"image: host {host_name} could not pull {image!r}: {error}")


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
