"""What a caller can have done wrong; each becomes a typed result of the API."""

from collections.abc import Sequence
from dataclasses import dataclass


class UserError(Exception):
    """Something about the request must change; the message says what."""


class NotFound(UserError):
    """What was named does not exist."""


class Conflict(UserError):
    """The request is well formed and does not fit the present state."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One bad field of an input, by its name in the API; the message names it too."""

    field: str
    message: str


class ValidationFailed(UserError):
    """Fields of an input are bad."""

    def __init__(self, fields: Sequence[FieldError]) -> None:
        super().__init__(" ".join(error.message for error in fields))
        self.fields = tuple(fields)
