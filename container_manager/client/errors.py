"""The errors of the client.

ClientError
  Unreachable            no answer, or the service cannot answer now
  Unauthenticated        no valid token
  Forbidden              the token's role does not allow it
  RequestFailed          any other error of the API, with its code
    CursorExpired        events after this cursor were deleted
  Refused                the request is well formed, but was not carried out
    ValidationFailed     a field of the input has no good value
    NotFound
    Conflict             it does not fit the present state
  JobFailed              a job has ended otherwise than SUCCEEDED
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class ClientError(Exception):
    """The base of all errors of the client."""


class Unreachable(ClientError):
    """The service does not answer, or cannot answer now."""

    was_connected = False
    """Whether a stream had begun before."""


class Unauthenticated(ClientError):
    """A valid token is needed."""


class Forbidden(ClientError):
    """The role of the token does not allow this."""


class RequestFailed(ClientError):
    """The API has answered with an error; `code` is its `extensions.code`."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class CursorExpired(RequestFailed):
    """Events after the cursor were deleted; `oldest` is the first cursor after which all are kept."""

    def __init__(self, message: str, oldest: str) -> None:
        super().__init__(message, "CURSOR_EXPIRED")
        self.oldest = oldest


class Refused(ClientError):
    """The request was not carried out."""


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with one field of an input, by its path, such as `environment.0.name`."""

    field: str
    reason: str


class ValidationFailed(Refused):
    """A field of the input has no good value; `fields` names each."""

    def __init__(self, message: str, fields: Sequence[FieldProblem]) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class NotFound(Refused):
    """There is no such thing."""


class Conflict(Refused):
    """It does not fit the present state; `field` is the field of the input that does not, if it is one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class _Ended(Protocol):
    @property
    def status(self) -> str: ...

    @property
    def error(self) -> str: ...

    @property
    def exit_code(self) -> int | None: ...


class JobFailed(ClientError):
    """A job has ended, but did not succeed; `job` is its last state."""

    def __init__(self, job: Any) -> None:
        ended: _Ended = job
        code = "" if ended.exit_code is None else f" with exit code {ended.exit_code}"
        super().__init__(f"The job has ended as {ended.status}{code}{f': {ended.error}' if ended.error else '.'}")
        self.job = job


def of_api(error: dict[str, Any]) -> ClientError:
    """The error for an entry of an answer's `errors`."""
    message, extensions = str(error.get("message")), error.get("extensions") or {}
    code = str(extensions.get("code", ""))
    match code:
        case "UNAUTHENTICATED":
            return Unauthenticated(message)
        case "FORBIDDEN":
            return Forbidden(message)
        case "UNAVAILABLE":
            return Unreachable(message)
        case "CURSOR_EXPIRED":
            return CursorExpired(message, str(extensions.get("oldest", "")))
        case _:
            return RequestFailed(message, code)


def of_result(result: Any) -> Refused:
    """The error for a member of a result's union that is a UserError."""
    match result.typename__:
        case "ValidationFailed":
            problems = [FieldProblem(one.field, one.reason) for one in result.fields]
            return ValidationFailed(result.message, problems)
        case "NotFound":
            return NotFound(result.message)
        case "Conflict":
            return Conflict(result.message, getattr(result, "field", None))
        case _:
            return Refused(result.message)
