"""What Cloud Run's errors mean: whose settings are wrong, and what to change."""

import re

import grpc
from google.api_core import exceptions as errors
from google.rpc import code_pb2

from container_manager.executors.cloudrun.channel import default_endpoint
from container_manager.executors.configs import CloudRunConfig
from container_manager.executors.exceptions import (
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorHostError,
    ExecutorOperationError,
    ExecutorResourceError,
)

EFFECT_UNKNOWN = (
    errors.ServiceUnavailable, errors.DeadlineExceeded, errors.Cancelled, errors.Unknown,
    errors.InternalServerError, errors.RetryError, TimeoutError, grpc.aio.AioRpcError,
)  # fmt: skip
"""The call may have had its effect."""

SET_UP_ERRORS = (errors.PermissionDenied, errors.Unauthenticated, errors.MethodNotImplemented)
HOST_ERROR = re.compile(r"service account|network|subnet|vpc|connector|billing", re.IGNORECASE)
"""A refusal with these words is caused by the host's settings, not by the job's."""

QUOTED_NAMES = re.compile(r"'[^']*'|\"[^\"]*\"|\S*/\S*")
"""Names in a refusal may contain any word."""

DENIED = re.compile(r"Permission '([^']+)'")
NOT_ENABLED = re.compile(r"has not been used in project|is disabled", re.IGNORECASE)
NO_TOKEN = "Getting metadata from plugin failed"  # noqa: S105 - the beginning of an error message


class Translator:
    """Turns errors of Google's libraries into those of executors, for one host."""

    def __init__(self, name: str, config: CloudRunConfig) -> None:
        self.where = f"host {name}"
        self._config = config

    def refused(self, text: str, code: int = code_pb2.INVALID_ARGUMENT) -> ExecutorError:
        """The error for a job that Cloud Run has refused: caused by a quota, by the host or by the job."""
        if code == code_pb2.RESOURCE_EXHAUSTED:
            return ExecutorResourceError(f"{self.where}: a quota of Cloud Run is used up: {text}")
        is_hosts = code == code_pb2.PERMISSION_DENIED or HOST_ERROR.search(QUOTED_NAMES.sub("", text))
        kind = ExecutorHostError if is_hosts else ExecutorConfigurationError
        return kind(f"{self.where}: Cloud Run refuses the job: {text}")

    def failed(self, error: BaseException, doing: str) -> ExecutorError:
        """The error for a call that has failed while `doing` something."""
        if isinstance(error, errors.ResourceExhausted):
            return self.refused(message_of(error), code_pb2.RESOURCE_EXHAUSTED)
        if isinstance(error, (errors.DeadlineExceeded, TimeoutError)):
            return ExecutorConnectionError(f"{self.where}: no answer in time while {doing}.")
        if NO_TOKEN in (message := message_of(error)):
            why = message.partition(f"{NO_TOKEN} with error: ")[2] or message
            return ExecutorConnectionError(f"{self.where}: config.credentials: there is no access token: {why}")
        if isinstance(error, EFFECT_UNKNOWN):
            return ExecutorConnectionError(f"{self.where}: {self._endpoint} does not answer: {message}")
        return ExecutorOperationError(f"{self.where}: while {doing}: {message}")

    def not_set_up(self, error: BaseException, permission: str) -> ExecutorHostError:
        """The error for a host that is not set up, in words that say what to change.

        `permission`: the one that the call needs.
        """
        message, where = message_of(error), self.where
        project, region = self._config.project, self._config.region
        if isinstance(error, errors.MethodNotImplemented):
            why = f"{self._endpoint} does not serve this ({message}); is config.endpoint the region's own?"
        elif isinstance(error, errors.Unauthenticated):
            why = f"config.credentials: Cloud Run does not accept them ({message})."
        elif NOT_ENABLED.search(message):
            why = f"the Cloud Run Admin API is not enabled in project {project}: {message}"
        elif "on 'locations/" in message:
            why = f"config.region: {region!r} may not exist, or project {project} may not use it ({message})."
        else:
            named = denied[1] if (denied := DENIED.search(message)) else permission
            why = f"the credentials lack the permission {named} (project {project}, {region}): {message}"
        return ExecutorHostError(f"{where}: {why}")

    @property
    def _endpoint(self) -> str:
        return self._config.endpoint or default_endpoint(self._config)


def message_of(error: BaseException) -> str:
    """The message of the server or the library as a sentence, without codes and repetitions."""
    if isinstance(error, errors.RetryError):
        error = error.cause or error
    # An error of Google's without a message is its code as text.
    text = error.details() if isinstance(error, grpc.aio.AioRpcError) else getattr(error, "message", str(error))
    if "Connection refused" in (text or ""):
        return "connection refused."
    text = " ".join((text or "no reason given").split())
    return text if text.endswith(".") else f"{text}."
