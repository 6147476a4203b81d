"""What the generated values are made of."""

from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """A part of an answer. Its fields have the API's names in snake_case; `as_json` gives the API's own."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)

    def as_json(self) -> dict[str, Any]:
        """The value as the API has answered it: names in camelCase, times as text."""
        return self.model_dump(mode="json", by_alias=True)


class Input(BaseModel):
    """An argument of an operation. A field that is not given is not sent; one that does not exist is an error."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, extra="forbid")


class OpenEnum(StrEnum):
    """An enumeration to which a newer server may add values; those are kept, with their name as value."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member
