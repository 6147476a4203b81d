"""GraphQL documents: their size, their kind, and a cache of those that are valid."""

import re
from dataclasses import dataclass
from functools import partial

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    get_operation_ast,
    validate,
)
from graphql.language import Token
from graphql.language.parser import Parser
from strawberry.types import ExecutionContext

from container_manager import configuration
from container_manager.domain.kinds import Role
from container_manager.store import threads
from graphql_api.cost import cost
from graphql_api.limits import (
    MAX_BATCH_VALUES,
    MAX_DIGITS,
    MAX_TOKENS,
    MAX_VALUES,
    RULES,
    cost_error,
    introspects,
    nul_error,
    number_error,
    submits_jobs,
    variables_error,
)
from graphql_api.operation import current

LONGEST_CACHED, CACHED_CHARACTERS = 8_192, 65_536
"""A parsed document takes up to a hundred times the memory of its text."""

QUICKLY_CHECKED = 1000
"""Characters of a document whose parsing and validation take a few milliseconds."""

LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
NUL = re.compile(r"\0|\\u\{?0+")
"""A NUL character, or the start of an escape that may stand for one."""

NO_INTROSPECTION = GraphQLError(
    "query: this installation does not show its schema (CONTAINER_MANAGER_INTROSPECTION).",
    extensions={"code": "FORBIDDEN"},
)
AMBIGUOUS = GraphQLError(
    "query: the document has several operations; name one of them in `operationName`.",
    extensions={"code": "BAD_USER_INPUT"},
)


@dataclass(slots=True)
class _Valid:
    """A valid document, and what it costs if that is always the same."""

    document: DocumentNode
    cost: float | None = None


_valid: dict[str, _Valid] = {}
"""The most recently used valid documents; the first was not used for the longest time."""


def known(query: str) -> DocumentNode | None:
    """The parsed document, if it is kept."""
    return valid.document if (valid := _valid.get(query)) is not None else None


def forget() -> None:
    """Keep no document."""
    _valid.clear()


async def document_of(query: str) -> DocumentNode:
    """The parsed document.

    Raises:
        GraphQLSyntaxError: as `parsed`.
    """
    if (valid := _valid.pop(query, None)) is not None:
        _valid[query] = valid
        return valid.document
    return await threads.prepare_request(parsed, query) if len(query) > QUICKLY_CHECKED else parsed(query)


async def refusals(context: ExecutionContext, document: DocumentNode) -> list[GraphQLError]:
    """Why an operation is not executed; empty when it is. Sets its cost and the number of its values."""
    if (error := _refusal(context, document)) is not None:
        return [error]
    query = context.query or ""
    valid = _valid.get(query)
    if valid is None or valid.document is not document:
        hides = not configuration.current().introspection
        work = partial(validate, context.schema._schema, document, RULES, hide_suggestions=hides)  # noqa: SLF001
        if errors := await threads.prepare_request(work) if len(query) > QUICKLY_CHECKED else work():
            for error in errors:
                error.extensions = error.extensions or {"code": "GRAPHQL_VALIDATION_FAILED"}
            return errors
        valid = _Valid(document)
        if len(query) <= LONGEST_CACHED:
            _keep(query, valid)
    current().cost = found = _cost(context, valid)
    return [] if (error := cost_error(found)) is None else [error]


def _keep(query: str, valid: _Valid) -> None:
    _valid[query] = valid
    while sum(map(len, _valid)) > CACHED_CHARACTERS:
        del _valid[next(iter(_valid))]


def _cost(context: ExecutionContext, valid: _Valid) -> float:
    if valid.cost is not None:
        return valid.cost
    hosts = context.context.service.hosts.fleet_size
    found = cost(context.schema._schema, valid.document, context.variables, hosts)  # noqa: SLF001
    if not found.varies:
        valid.cost = found.units
    return found.units


def parsed(query: str) -> DocumentNode:
    """Parse a document, which is freed as soon as it is not used.

    Its tokens refer to the one before and the one after each. In such circles they would stay until the garbage
    collector comes, a megabyte for a large document.

    Raises:
        GraphQLSyntaxError: it is no document, has more than 4,000 tokens, or is nested too deeply.
    """
    parser = Parser(query, max_tokens=MAX_TOKENS)
    lexer = parser._lexer  # noqa: SLF001
    try:
        return parser.parse_document()
    except RecursionError:
        raise GraphQLSyntaxError(lexer.source, 0, "Document is nested too deeply.") from None
    finally:
        token: Token | None = lexer.token
        # Comments that were read ahead come after it.
        while token is not None and token.next is not None:
            token = token.next
        while token is not None:
            before, token.prev, token.next = token.prev, None, None
            token = before


def _refusal(context: ExecutionContext, document: DocumentNode) -> GraphQLError | None:
    """What is wrong with a request, whether its document is valid or not."""
    operations = sum(isinstance(definition, OperationDefinitionNode) for definition in document.definitions)
    # Its public property has the name of the first operation when the client gave none.
    if operations > 1 and context._provided_operation_name is None:  # noqa: SLF001
        return AMBIGUOUS
    if LONG_NUMBER.search(context.query or "") and (error := number_error(document)) is not None:
        # Core validation would fail on it.
        return error
    if not configuration.current().introspection and introspects(document):
        return NO_INTROSPECTION
    operation = get_operation_ast(document, context._provided_operation_name)  # noqa: SLF001
    if operation is None:
        return None
    mutates = operation.operation is OperationType.MUTATION
    if not mutates and NUL.search(context.query or "") and (error := nul_error(document)) is not None:
        return error
    identity = context.context.identity
    large = identity is not None and identity.may(Role.OPERATOR) and submits_jobs(operation)
    most = MAX_BATCH_VALUES if large else MAX_VALUES
    error, current().values = variables_error(context.variables, most, mutates=mutates)
    return error


def too_large(document: str) -> GraphQLError | None:
    """The error for a document that exceeds CONTAINER_MANAGER_MAX_DOCUMENT_BYTES; None for any other."""
    limit: int = configuration.current().max_document_bytes
    size = len(document.encode())
    if size <= limit:
        return None
    return GraphQLError(
        f"query: the document has {size} bytes; at most {limit} are allowed. Put data into variables.",
        extensions={"code": "BAD_USER_INPUT"},
    )


def is_subscription(document: str | None, operation_name: str | None) -> bool:
    """Whether the document's operation is a subscription; False for a document that cannot be parsed."""
    if not document or too_large(document) is not None:
        return False
    try:
        operation = get_operation_ast(known(document) or parsed(document), operation_name)
    except GraphQLError:
        return False
    return operation is not None and operation.operation is OperationType.SUBSCRIPTION
