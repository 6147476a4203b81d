"""The limits of an operation, checked before it runs."""

from typing import Any

from graphql import (
    FieldNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValidationRule,
)

MAX_TOKENS = 4000
MAX_DEPTH = 12
MAX_ALIASES = 100
MAX_COST = 20_000
LARGEST_PAGE, LONG_PAGE = 100, 1000
LISTS = {
    "hosts": 50,
    "jobs": 50,
    "routingDecisions": 50,
    "routingEvents": 50,
    "routingEventBatches": 50,
    "logs": 50,
    "decisions": 5,
    "checks": 5,
    # One result for each input, whose number the document does not show.
    "submitJobs": 100,
    "routeJobs": 100,
    "placements": 10,
}
"""The assumed length of a list whose length the document does not give."""

Measure = tuple[int, int, int]
"""Depth, aliases, cost."""


class WithinLimits(ValidationRule):
    """Limits depth, aliases and cost. Each fragment is measured once, however often it is spread.

    A field costs 1. The selection of a field with `first` or `last` costs that many times as much, or the largest page
    when a variable gives the number. Core validation rejects fragments that spread themselves.
    """

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._fragments: dict[str, Measure] = {}

    def enter_operation_definition(self, node: OperationDefinitionNode, *_: Any) -> None:
        depth, aliases, cost = self._measure(node.selection_set)
        for name, found, limit in (
            ("depth", depth, MAX_DEPTH),
            ("aliases", aliases, MAX_ALIASES),
            ("cost", cost, MAX_COST),
        ):
            if found > limit:
                self.report_error(
                    GraphQLError(
                        f"query: its {name} is {found}; at most {limit} are allowed.",
                        node,
                        extensions={"code": "BAD_USER_INPUT"},
                    )
                )

    def _measure(self, selections: SelectionSetNode | None) -> Measure:
        depth = aliases = cost = 0
        for node in selections.selections if selections else ():
            below = self._below(node)
            depth, aliases, cost = max(depth, below[0]), aliases + below[1], cost + below[2]
        return depth, aliases, cost

    def _below(self, node: Any) -> Measure:
        if isinstance(node, FieldNode):
            if node.name.value.startswith("__"):
                return 0, 0, 0
            depth, aliases, cost = self._measure(node.selection_set)
            return depth + 1, aliases + (node.alias is not None), 1 + cost * _page(node)
        if isinstance(node, InlineFragmentNode):
            return self._measure(node.selection_set)
        assert isinstance(node, FragmentSpreadNode)  # noqa: S101 - GraphQL has three kinds of selection
        return self._fragment(node.name.value)

    def _fragment(self, name: str) -> Measure:
        if name not in self._fragments:
            # Set first, so that the recursion of a fragment that spreads itself ends here.
            self._fragments[name] = (0, 0, 0)
            fragment = self.context.get_fragment(name)
            self._fragments[name] = self._measure(fragment.selection_set) if fragment else (0, 0, 0)
        return self._fragments[name]


def _page(node: FieldNode) -> int:
    largest = LONG_PAGE if node.name.value == "logs" else LARGEST_PAGE
    sizes = [argument.value for argument in node.arguments or () if argument.name.value in {"first", "last"}]
    if not sizes:
        return LISTS.get(node.name.value, 1)
    return max(min(abs(int(size.value)), LONG_PAGE) if isinstance(size, IntValueNode) else largest for size in sizes)
