"""Plain fields are answered past graphql-core: the answers, errors and their order are the same."""

from datetime import UTC, datetime
from enum import Enum
from typing import Any
from unittest.mock import patch

import pytest
import strawberry
from strawberry.permission import BasePermission

from graphql_api import plain
from graphql_api.execution import ExecutionContext
from graphql_api.operation import LARGEST_ANSWER, begun, current


@strawberry.enum
class Colour(Enum):
    RED = "r"
    BLUE = "b"


class Refuses(BasePermission):
    message = "not for you"

    def has_permission(self, source: Any, info: Any, **_: Any) -> bool:
        return False


@strawberry.type
class Thing:
    name: str
    size: int
    colour: Colour
    made_at: datetime
    note: str | None
    tags: list[str]
    secret: str = strawberry.field(default="s", permission_classes=[Refuses])

    @strawberry.field
    async def slow(self) -> str:
        return self.name

    @strawberry.field
    def first_letter(self) -> str:
        return self.name[0]

    @strawberry.field
    def long_text(self) -> str:
        current().spend(characters=LARGEST_ANSWER // 4)
        return self.name

    @strawberry.field
    def inner(self) -> "Thing | None":
        return Thing(**{**vars(self), "name": f"{self.name}'s"}) if "'" not in self.name else None


class Broken:
    """In the place of a Thing whose attributes raise."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError(f"no {name}")


GOOD = {
    "name": "a", "size": 3, "colour": Colour.BLUE, "made_at": datetime(2026, 1, 1, tzinfo=UTC), "note": None, "tags": ["x"],
}  # fmt: skip


@strawberry.type
class Query:
    @strawberry.field
    def things(self) -> list[Thing | None]:
        return [Thing(**GOOD), Thing(**{**GOOD, "note": "n"}), None]

    @strawberry.field
    def without_a_name(self) -> Thing | None:
        return Thing(**{**GOOD, "name": None})

    @strawberry.field
    def too_large(self) -> Thing | None:
        return Thing(**{**GOOD, "size": 2**40})

    @strawberry.field
    def of_no_colour(self) -> Thing | None:
        return Thing(**{**GOOD, "colour": None, "note": 5})

    @strawberry.field
    def faulty(self) -> list[Thing | None]:
        sizes, names = ({**GOOD, "size": 2**40}, {**GOOD, "size": "x"}), ({**GOOD, "name": None}, {**GOOD, "name": 7})
        return [Thing(**values) for values in (GOOD, *sizes, *names)]

    @strawberry.field
    def none_may_be_missing(self) -> list[Thing] | None:
        return [Thing(**GOOD), None]  # type: ignore[list-item]

    @strawberry.field
    def others(self) -> list[Thing]:
        return [Broken(), Broken()]  # type: ignore[list-item]

    @strawberry.field
    def broken(self) -> Thing | None:
        return Broken()  # type: ignore[return-value]


SCHEMA = strawberry.Schema(query=Query, execution_context_class=ExecutionContext)
ALL = "__typename name size colour madeAt note tags"
QUERIES = [
    f"{{ things {{ {ALL} slow inner {{ {ALL} inner {{ name }} }} }} }}",
    "{ things { b: size a: name size name slow a2: slow ... on Thing { note } ...F } } fragment F on Thing { colour }",
    *(
        f"{{ {field} {{ {ALL} slow }} other: {field} {{ note }} }}"
        for field in ("withoutAName", "tooLarge", "ofNoColour")
    ),
    "{ broken { name } again: broken { note size } }",
    f"{{ things {{ {ALL} firstLetter inner {{ {ALL} inner {{ name }} }} }} }}",
    f"{{ faulty {{ {ALL} firstLetter }} sizes: faulty {{ size }} inside: faulty {{ inner {{ name size }} }} }}",
    "{ noneMayBeMissing { name } }",
    "{ things { name secret } }",
    "{ things { name longText } faulty { longText name } }",
    "{ others { name } }",
    "{ things { a: tags name @skip(if: true) ... on Thing @include(if: true) { size } size } }",
]


@pytest.mark.parametrize("query", QUERIES)
async def test_the_answer_is_that_of_graphql_core(query: str) -> None:
    def shown(result: Any) -> tuple[Any, list[Any]]:
        errors = [error.formatted for error in result.errors or ()]
        return result.data, sorted(errors, key=lambda error: (error["path"], error["message"]))

    with begun(query):
        ours = await SCHEMA.execute(query)
    with patch.object(plain, "leaves", lambda _: {}), patch.object(plain, "of_objects", lambda *_: None):
        with begun(query):
            theirs = await SCHEMA.execute(query)
    assert shown(ours) == shown(theirs)
    if ours.data:
        assert str(ours.data) == str(theirs.data), "in the same order"


def test_attributes_and_methods_without_arguments_are_plain() -> None:
    kind = SCHEMA._schema.get_type("Thing")
    attributes = ["__typename", "colour", "madeAt", "name", "note", "size"]
    assert sorted(plain.leaves(kind)) == attributes
    assert sorted(plain.fields(kind)) == sorted([*attributes, "tags", "firstLetter", "inner", "longText"])
