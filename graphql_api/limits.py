"""The limits of an operation, checked before it runs."""

from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    IntValueNode,
    Node,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    StringValueNode,
    ValidationRule,
    Visitor,
    specified_rules,
    visit,
)

OPERATION_SECONDS = 60.0
MAX_TOKENS = 4000
MAX_DEPTH = 12
MAX_ALIASES = 100
MAX_COST = 100_000
"""About two seconds of CPU time; see `cost`."""
MAX_VALUES, MAX_BATCH_VALUES = 10_000, 300_000
"""JSON values in the variables of an operation, and of one with `submitJobs`."""
MAX_DIGITS = 19
MAX_COMPARISONS = 20_000
"""The budget of graphql-core's check that fields of the same name can be merged: enough for introspection."""
LARGEST_PAGE = 100
NO_NUL = "a string must not contain a NUL character."

Measure = tuple[int, int]
"""Depth and aliases."""


def too_long() -> GraphQLError:
    """The error of an operation that was given up."""
    return GraphQLError(
        f"The operation took longer than {OPERATION_SECONDS:g} s and was given up; a mutation may have had its effect.",
        extensions={"code": "TIMEOUT"},
    )


class WithinLimits(ValidationRule):
    """Limits depth and aliases. Each fragment is measured once, however often it is spread.

    Core validation rejects fragments that spread themselves.
    """

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._fragments: dict[str, Measure] = {}

    def _report(self, message: str, node: Node) -> None:
        self.report_error(GraphQLError(message, node, extensions={"code": "BAD_USER_INPUT"}))

    def enter_operation_definition(self, node: OperationDefinitionNode, *_: Any) -> None:
        depth, aliases = self._measure(node.selection_set)
        for name, found, limit in (("depth", depth, MAX_DEPTH), ("aliases", aliases, MAX_ALIASES)):
            if found > limit:
                self._report(f"query: its {name} is {found}; at most {limit} are allowed.", node)

    def _measure(self, selections: SelectionSetNode | None) -> Measure:
        depth = aliases = 0
        for node in selections.selections if selections else ():
            below = self._below(node)
            depth, aliases = max(depth, below[0]), aliases + below[1]
        return depth, aliases

    def _below(self, node: Any) -> Measure:
        if isinstance(node, FieldNode):
            depth, aliases = self._measure(node.selection_set)
            if node.name.value.startswith("__"):
                # Core validation limits how deep introspection goes.
                depth = -1
            return depth + 1, aliases + (node.alias is not None)
        if isinstance(node, InlineFragmentNode):
            return self._measure(node.selection_set)
        assert isinstance(node, FragmentSpreadNode)  # noqa: S101 - GraphQL has three kinds of selection
        return self._fragment(node.name.value)

    def _fragment(self, name: str) -> Measure:
        if name not in self._fragments:
            # Set first, so that the recursion of a fragment that spreads itself ends here.
            self._fragments[name] = (0, 0)
            fragment = self.context.get_fragment(name)
            self._fragments[name] = self._measure(fragment.selection_set) if fragment else (0, 0)
        return self._fragments[name]


RULES = (*specified_rules, WithinLimits)
"""What makes a document valid."""


def cost_error(found: float) -> GraphQLError | None:
    """The error of an operation that costs too much; None if it does not."""
    if found <= MAX_COST:
        return None
    return _refused(
        f"query: its cost is {found:.0f}; at most {MAX_COST} are allowed. Ask for smaller pages or fewer fields."
    )


class _LongestNumber(Visitor):
    digits = 0

    def enter_int_value(self, node: IntValueNode, *_: Any) -> None:
        self.digits = max(self.digits, len(node.value))


def number_error(document: DocumentNode) -> GraphQLError | None:
    """The error of an integer in the document that no field takes, and Python may refuse to read."""
    visit(document, longest := _LongestNumber())
    if longest.digits <= MAX_DIGITS:
        return None
    return _refused(f"query: a number has {longest.digits} digits; at most {MAX_DIGITS} are allowed.")


class _Introspection(Visitor):
    found = False

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        self.found = self.found or node.name.value in {"__schema", "__type"}


def introspects(document: DocumentNode) -> bool:
    """Whether the document asks for the schema."""
    visit(document, asked := _Introspection())
    return asked.found


def submits_jobs(operation: OperationDefinitionNode) -> bool:
    """Whether the operation has the field `submitJobs`, the only one with large variables."""
    return operation.operation is OperationType.MUTATION and any(
        isinstance(field, FieldNode) and field.name.value == "submitJobs"
        for field in operation.selection_set.selections
    )


def variables_error(variables: object, most: int, *, mutates: bool) -> tuple[GraphQLError | None, int]:
    """The error of variables that are too many, or have characters that no database keeps; and how many they are.

    They are checked before they are coerced, which takes much longer. The inputs of mutations are checked by field.
    """
    count, waiting = 0, [variables]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (dict, list)):
            count += len(value)
            if count > most:
                return _refused(f"variables: they have more than {most} values. Send fewer at a time."), count
            if isinstance(value, dict):
                waiting.extend(value.values())
                if not mutates:
                    waiting.extend(value)
            else:
                waiting.extend(value)
        elif isinstance(value, str) and "\0" in value and not mutates:
            return _refused(f"variables: {NO_NUL}"), count
    return None, count


class _Strings(Visitor):
    has_nul = False

    def enter_string_value(self, node: StringValueNode, *_: Any) -> None:
        self.has_nul = self.has_nul or "\0" in node.value


def nul_error(document: DocumentNode) -> GraphQLError | None:
    """The error of a string in the document that no database keeps."""
    visit(document, strings := _Strings())
    return _refused(f"query: {NO_NUL}") if strings.has_nul else None


def _refused(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": "BAD_USER_INPUT"})
