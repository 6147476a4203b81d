"""What an operation costs: an estimate of its CPU time, from the document, its variables and the schema.

One unit is some 20 microseconds; benchmarks/cost.py compares the two.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    SchemaMetaFieldDef,
    SelectionSetNode,
    TypeMetaFieldDef,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_list_type,
)

LONGEST_PAGE = 1000
MOST_PLANNED_HOSTS = 2000
"""Hosts that all placements of a plan show together."""

OPERATION, WRITTEN, LEAF, OBJECT = 100.0, 3.0, 0.1, 0.75
"""What every operation costs, every field of the document, every plain value and every object of the answer."""

PLANNED = 4.0
"""What each job of a plan costs, also when its placement is not selected."""

OWN = {
    "Query.queue": 200.0,
    "Query.capacity": 20.0,
    "Query.whyNot": 20.0,
    "Query.planRouting": 100.0,
    "Mutation.checkHealth": 500.0,
    "Mutation.cancelJobs": 500.0,
    "Mutation.retryJobs": 500.0,
    "Mutation.drainHosts": 500.0,
    "Mutation.resumeHosts": 500.0,
    "Mutation.applyHosts": 500.0,
    "Query.jobStats": 60.0,
    "JobStats.groups": 60.0,
    "JobStats.unfinished": 40.0,
    "ContainerJobConnection.totalCount": 60.0,
    "ExecutorHost.jobs": 60.0,
    "ExecutorHost.decisions": 60.0,
    "ExecutorHost.events": 60.0,
    "ExecutorHost.history": 60.0,
    "ExecutorHost.settings": 2.0,
    "ContainerJob.timeline": 10.0,
    "ContainerJob.logs": 40.0,
    "RoutingDecision.hosts": 5.0,
    "RoutingDecision.replay": 10.0,
    "ContainerJob.decisions": 2.0,
    "ContainerJob.attempts": 2.0,
    "ContainerJob.waitingOn": 5.0,
    "RoutingDecision.job": 4.0,
    "RoutingEvent.job": 10.0,
    "JobAttempt.decision": 2.0,
    "RoutingRefused.suggestions": 10.0,
}
"""What a field costs besides its selection, where it is more than that of others."""

PER_HOST = {
    "Query.capacity": 2.0,
    "Query.whyNot": 2.0,
    "Query.planRouting": 1.0,
    "RoutingDecision.hosts": 0.2,
    "RoutingDecision.replay": 0.4,
    "RoutingRefused.suggestions": 0.2,
}
"""What it costs for each host of the fleet."""

EACH = {
    "Query.hosts": 2.5,
    "Query.jobs": 5.0,
    "Query.routingEvents": 1.0,
    "Query.routingDecisions": 1.0,
    "Query.auditLog": 0.4,
    "ExecutorHost.jobs": 3.0,
    "ExecutorHost.decisions": 1.0,
    "ExecutorHost.events": 1.0,
    "ExecutorHost.history": 0.5,
    "JobStats.groups": 2.0,
    "RoutingPlan.waiting": 4.0,
    "RoutingDecision.hosts": 2.0,
    "Placement.hosts": 4.0,
    "RoutingPlan.placements": 10.0,
    "Mutation.checkHealth": 50.0,
}
"""What each element of a list costs besides its selection."""

LISTS = {
    "__Schema.types": 110,
    "__Type.fields": 5,
    "__Type.inputFields": 3,
    "__Type.enumValues": 2,
    "__Field.args": 1,
    "HostVerdict.checks": 15,
    "RoutingDecision.rejections": 2,
    "RoutingRefused.rejections": 2,
    "ContainerJob.decisions": 2,
    "ContainerJob.attempts": 2,
    "ContainerJob.timeline": 6,
    "Query.tokens": 20,
    "Query.capacity": 5,
    # They are executed for each event, for as long as the subscription lasts.
    "Subscription.routingEvents": 1000,
    "Subscription.routingEventBatches": 1000,
    # Operators send large batches, which have limits of their own.
    "Mutation.submitJobs": 100,
    "Mutation.routeJobs": 100,
    "Mutation.applyHosts": 100,
    "Mutation.checkHealth": 50,
}
"""The assumed length of a list whose length the document does not give; else it is `USUAL_LENGTH` or `USUAL_PAGE`."""

USUAL_LENGTH, USUAL_PAGE = 3, 50
USUAL_HISTORY, LONGEST_HISTORY = 60, 90 * 24


class _Measure:
    """Measures operations of one document. Each fragment is measured once, however often it is spread."""

    def __init__(
        self, schema: GraphQLSchema, document: DocumentNode, variables: Mapping[str, Any] | None, hosts: int
    ) -> None:
        self._schema, self._variables, self._hosts = schema, variables or {}, hosts
        definitions = document.definitions
        self._fragments = {d.name.value: d for d in definitions if isinstance(d, FragmentDefinitionNode)}
        self._measured: dict[tuple[str, int, int], float] = {}
        """By name, and by the planned jobs and the buckets of the field around it."""
        self._defaults: dict[str, ValueNode | None] = {}
        self.varies = False
        """Whether other variables, or more hosts, may change the cost."""
        self._planned = 1
        self._buckets = USUAL_PAGE
        self._written = 0

    def of(self, operation: OperationDefinitionNode) -> float:
        self._defaults = {v.variable.name.value: v.default_value for v in operation.variable_definitions or ()}
        root = self._schema.get_root_type(operation.operation)
        self._written = 0
        selected = self._selection(root, operation.selection_set) if root else 0
        return OPERATION + WRITTEN * self._written + selected

    def _selection(self, parent: GraphQLNamedType | None, selections: SelectionSetNode | None) -> float:
        return sum(self._cost(parent, node) for node in (selections.selections if selections else ()))

    def _cost(self, parent: GraphQLNamedType | None, node: Any) -> float:
        if isinstance(node, FieldNode):
            return self._field(parent, node)
        if isinstance(node, InlineFragmentNode):
            condition = node.type_condition
            kind = self._schema.get_type(condition.name.value) if condition else parent
            return self._selection(kind, node.selection_set)
        return self._fragment(node.name.value)

    def _fragment(self, name: str) -> float:
        key = (name, self._planned, self._buckets)
        if key not in self._measured:
            # Set first, so that the recursion of a fragment that spreads itself ends here.
            self._measured[key] = 0
            if (fragment := self._fragments.get(name)) is not None:
                kind = self._schema.get_type(fragment.type_condition.name.value)
                self._measured[key] = self._selection(kind, fragment.selection_set)
        return self._measured[key]

    def _field(self, parent: GraphQLNamedType | None, node: FieldNode) -> float:
        self._written += 1
        name = node.name.value
        field = self._definition(parent, name)
        if field is None or parent is None:
            return LEAF
        full = f"{parent.name}.{name}"
        kind = get_named_type(field.type)
        arguments = {argument.name.value: argument.value for argument in node.arguments or ()}
        count = self._count(full, field, arguments)
        own = OWN.get(full, LEAF if node.selection_set is None else OBJECT)
        if full in PER_HOST:
            self.varies = True
            own += PER_HOST[full] * self._hosts
        if full == "Query.planRouting":
            own += PLANNED * self._planned
        each = EACH.get(full, 0) + self._selection(kind, node.selection_set)
        return own + count * each

    def _definition(self, parent: GraphQLNamedType | None, name: str) -> GraphQLField | None:
        if name == "__schema":
            return SchemaMetaFieldDef
        if name == "__type":
            return TypeMetaFieldDef
        return parent.fields.get(name) if isinstance(parent, (GraphQLObjectType, GraphQLInterfaceType)) else None

    def _count(self, full: str, field: GraphQLField, arguments: Mapping[str, ValueNode]) -> int:
        if full == "Query.planRouting":
            self._planned = max(self._length(arguments.get("jobs"), LONGEST_PAGE), 1)
        elif full.endswith(".jobStats"):
            self._buckets = self._integer(arguments["buckets"]) if "buckets" in arguments else USUAL_PAGE
        sizes = {"RoutingPlan.placements": self._planned, "JobStats.buckets": self._buckets}
        if full in sizes:
            return sizes[full]
        if full == "ExecutorHost.history":
            # An hour of minutes, or the most hours that are kept.
            return LONGEST_HISTORY if "since" in arguments else USUAL_HISTORY
        if full == "Placement.hosts":
            return min(self._page(arguments), max(MOST_PLANNED_HOSTS // self._planned, 1))
        if "first" in field.args:
            return self._page(arguments)
        if full.endswith("Connection.edges") or not is_list_type(get_nullable_type(field.type)):
            # The field with the connection has counted its elements.
            return LISTS.get(full, 1)
        return LISTS.get(full, USUAL_LENGTH)

    def _page(self, arguments: Mapping[str, ValueNode]) -> int:
        sizes = [arguments[name] for name in ("first", "last") if name in arguments]
        return max((self._integer(size) for size in sizes), default=USUAL_PAGE)

    def _value(self, node: ValueNode | None) -> Any:
        """A number, a list, or the node of a literal; None when not given."""
        if not isinstance(node, VariableNode):
            return node
        self.varies = True
        name = node.name.value
        return self._variables[name] if name in self._variables else self._defaults.get(name)

    def _integer(self, node: ValueNode) -> int:
        value = self._value(node)
        if isinstance(value, IntValueNode):
            return min(abs(int(value.value)), LONGEST_PAGE)
        return min(abs(value), LONGEST_PAGE) if isinstance(value, int) else USUAL_PAGE

    def _length(self, node: ValueNode | None, default: int) -> int:
        value = self._value(node)
        if isinstance(value, ListValueNode):
            return len(value.values)
        return len(value) if isinstance(value, list) else default


class Cost(NamedTuple):
    """The cost of a document, and whether it depends on its variables or on the fleet."""

    units: float
    varies: bool


def cost(schema: GraphQLSchema, document: DocumentNode, variables: Mapping[str, Any] | None, hosts: int) -> Cost:
    """The cost of the most expensive operation of a document, for a fleet of this many hosts."""
    measure = _Measure(schema, document, variables, hosts)
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    return Cost(max(map(measure.of, operations), default=0), measure.varies)
