"""Secrets in the settings of hosts: masked when they leave, and put back when the mask returns."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel

SECRET_MASK = "********"  # noqa: S105 - shown in place of a secret


class Secret:
    """Marks a value that never leaves through the API."""


def _is_the_secret_itself(value: str) -> str:
    if value == SECRET_MASK:
        raise ValueError(
            "is the mask, not the secret, and no secret is stored here that it could stand for; after a change of the "
            "address, secrets must be given again"
        )
    return value


Hidden = Annotated[str, Secret(), AfterValidator(_is_the_secret_itself)]


def hide_secrets(config: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """A copy of the config with its secret values masked."""
    shown: dict[str, Any] = {}
    for key, value in config.items():
        field = model.model_fields.get(key)
        if field is not None and any(isinstance(mark, Secret) for mark in field.metadata) and value:
            shown[key] = SECRET_MASK
        elif isinstance(value, Mapping) and field is not None:
            shown[key] = _hide_nested(value, field.annotation)
        else:
            shown[key] = value
    return shown


def _hide_nested(value: Mapping[str, Any], annotation: Any) -> dict[str, Any]:
    inner = [arg for arg in (annotation, *getattr(annotation, "__args__", ())) if isinstance(arg, type)]
    nested = next((arg for arg in inner if issubclass(arg, BaseModel)), None)
    if nested is None:
        return dict(value)
    if getattr(annotation, "__origin__", None) is dict:
        return {key: hide_secrets(entry, nested) for key, entry in value.items()}
    return hide_secrets(value, nested)


def keep_secrets(given: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with each mask replaced by the stored value, so that a config read from the API can be sent back."""
    merged: dict[str, Any] = {}
    for key, value in given.items():
        old = stored.get(key)
        if value == SECRET_MASK and old:
            merged[key] = old
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[key] = keep_secrets(value, old)
        else:
            merged[key] = value
    return merged


def merged(stored: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`stored` changed by a JSON merge patch (RFC 7396): keys that are not given stay, and null removes a key."""
    result = dict(stored)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            old = result.get(key)
            result[key] = merged(old if isinstance(old, Mapping) else {}, value)
        else:
            result[key] = value
    return result
