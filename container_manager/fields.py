"""Model fields that store integers or ciphertext and give Python plain values."""

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django.db import models

from container_manager import crypto

if TYPE_CHECKING:
    _Integer = models.IntegerField[float | None, float | None]
    _Binary = models.BinaryField[Any, Any]
else:
    _Integer = models.IntegerField
    _Binary = models.BinaryField

MILLI = 1000


def choices(kinds: type[StrEnum]) -> list[tuple[str, str]]:
    """The choices of a column: the value and the title of each member."""
    return [(kind.value, kind.name.replace("_", " ").title()) for kind in kinds]


class CoresField(_Integer):
    """CPU cores as a float, stored as integer millicores so that sums are exact."""

    def from_db_value(self, value: int | None, *_: object) -> float | None:
        return None if value is None else value / MILLI

    def get_prep_value(self, value: Any) -> int | None:
        return None if value is None else round(float(value) * MILLI)

    def to_python(self, value: Any) -> float | None:
        return None if value is None else float(value)


class EncryptedJSONField(_Binary):
    """A JSON value, encrypted at rest; an empty value is stored as NULL."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.update(null=True, default=dict)
        super().__init__(*args, **kwargs)

    def from_db_value(self, value: bytes | memoryview | None, *_: object) -> Any:
        return {} if value is None else crypto.decrypt(bytes(value))

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        encrypted = crypto.encrypt(value) if value else None
        return super().get_db_prep_value(encrypted, connection, prepared)

    def value_to_string(self, obj: models.Model) -> str:
        return super().value_to_string(obj) if isinstance(self.value_from_object(obj), bytes) else ""
