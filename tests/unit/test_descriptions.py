"""Everything in the schema says what it is."""

from typing import Any

from graphql import GraphQLEnumType, build_schema, is_specified_scalar_type

from graphql_api.descriptions import ANY, DESCRIPTIONS, ITSELF
from tests.processes import ROOT

SCHEMA = build_schema((ROOT / "graphql_api" / "schema.graphql").read_text())


def elements() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in SCHEMA.type_map.values():
        if kind.name.startswith("__") or is_specified_scalar_type(kind):
            continue
        found[kind.name] = kind
        fields = kind.values if isinstance(kind, GraphQLEnumType) else getattr(kind, "fields", {})
        for name, field in fields.items():
            found[f"{kind.name}.{name}"] = field
            for argument, definition in getattr(field, "args", {}).items():
                found[f"{kind.name}.{name}({argument}:)"] = definition
    return found


def test_each_element_has_a_description() -> None:
    assert [name for name, element in elements().items() if not element.description] == []


def test_each_description_is_shown() -> None:
    shown = {name: element.description for name, element in elements().items()}
    for kind, texts in DESCRIPTIONS.items():
        for key, text in texts.items():
            if kind == ANY:
                assert text in shown.values(), f"{key} is used by no type"
            else:
                assert shown.get(f"{kind}.{key}" if key != ITSELF else kind) == text, f"{kind}.{key}"
