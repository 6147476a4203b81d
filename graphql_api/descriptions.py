"""Descriptions of what the schema has in common or takes from elsewhere; `descriptions.toml` has the texts."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphql import GraphQLEnumType, GraphQLSchema, is_specified_scalar_type

ANY, ITSELF = "*", ""

DESCRIPTIONS: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("descriptions.toml").read_text())


def describe(schema: GraphQLSchema) -> None:
    """Give a description to everything in the schema that has none."""
    for kind in schema.type_map.values():
        if kind.name.startswith("__") or is_specified_scalar_type(kind):
            continue
        for names, element in _elements(kind):
            if not element.description:
                element.description = _found(kind.name, *names)


def _elements(kind: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All that a type has, and the type itself, with the keys under which to look for a description."""
    yield (ITSELF,), kind
    fields = kind.values if isinstance(kind, GraphQLEnumType) else getattr(kind, "fields", {})
    for name, field in fields.items():
        yield (name,), field
        for argument, definition in getattr(field, "args", {}).items():
            yield (f"{name}({argument}:)", f"({argument}:)"), definition


def _found(kind: str, *names: str) -> str | None:
    own, common = DESCRIPTIONS.get(kind, {}), DESCRIPTIONS[ANY]
    if names == (ITSELF,):
        for end, text in (("Connection", "A page of {}s."), ("Edge", "A {} with its position.")):
            if kind.endswith(end) and ITSELF not in own:
                return text.format(kind.removesuffix(end))
        return own.get(ITSELF)
    return next((texts[name] for name in names for texts in (own, common) if name in texts), None)
