"""Errors that a caller of the service can cause or must expect. The API maps each of them to a typed answer."""

from collections.abc import Sequence
from dataclasses import dataclass

NO_JOB = "There is no such job."
NO_HOST = "There is no such host."


class UserError(Exception):
    """The request must change; the message says what."""


class NotFound(UserError):
    """The request names an object that does not exist."""


class Conflict(UserError):
    """The request is well formed but does not fit the present state.

    `field`: the field of the input that does not fit, by its name in the API; the message begins with it.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message if field is None else f"{field}: {message}")
        self.field = field


@dataclass(frozen=True, slots=True)
class FieldError:
    """One invalid field of an input, by its name in the API; the message contains the name too."""

    field: str
    message: str


class ValidationFailed(UserError):
    """Fields of an input are invalid."""

    def __init__(self, fields: Sequence[FieldError]) -> None:
        super().__init__(" ".join(error.message for error in fields))
        self.fields = tuple(fields)


class Unavailable(Exception):
    """The service cannot take the request now. Nothing was changed, so the same request may be sent again."""
