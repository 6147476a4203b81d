"""GraphQL documents: their size, their kind, and a cache of those that are valid."""

import re
from collections.abc import Iterator

from django.conf import settings
from graphql import DocumentNode, GraphQLError, OperationDefinitionNode, OperationType, get_operation_ast, parse
from strawberry.extensions import SchemaExtension
from strawberry.types import ExecutionContext

from container_manager.domain.kinds import Role
from graphql_api.limits import (
    MAX_BATCH_VALUES,
    MAX_DIGITS,
    MAX_TOKENS,
    MAX_VALUES,
    introspects,
    number_error,
    submits_jobs,
    variables_error,
)

LONGEST_CACHED, CACHED_CHARACTERS = 16_384, 262_144
"""A parsed document takes up to a hundred times the memory of its text."""


LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
NO_INTROSPECTION = GraphQLError(
    "query: this installation does not show its schema (CONTAINER_MANAGER_INTROSPECTION).",
    extensions={"code": "FORBIDDEN"},
)
AMBIGUOUS = GraphQLError(
    "query: the document has several operations; name one of them in `operationName`.",
    extensions={"code": "BAD_USER_INPUT"},
)


class DocumentCache(SchemaExtension):
    """Parses and validates each document once; keeps the most recently used valid ones.

    Strawberry's own caches also keep documents that failed. Over WebSocket, a cached syntax error would then end an
    operation without telling the client why.
    """

    _valid: dict[str, DocumentNode] = {}

    @classmethod
    def known(cls, query: str) -> DocumentNode | None:
        """The parsed document, if it is kept."""
        return cls._valid.get(query)

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        query = context.query or ""
        if (known := self._valid.pop(query, None)) is not None:
            # Inserted again at the end: the first entry is the one that was not used for the longest time.
            self._valid[query] = known
            context.graphql_document = known
        yield

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        query, document = context.query or "", context.graphql_document
        if document is not None and (error := _refusal(context, document)) is not None:
            context.pre_execution_errors = [error]
            yield
            return
        if document is not None and self.known(query) is document:
            context.pre_execution_errors = []
            yield
            return
        yield
        if not context.pre_execution_errors and document is not None and len(query) <= LONGEST_CACHED:
            self._valid[query] = document
            while sum(map(len, self._valid)) > CACHED_CHARACTERS:
                del self._valid[next(iter(self._valid))]


def _refusal(context: ExecutionContext, document: DocumentNode) -> GraphQLError | None:
    """What is wrong with a request, whether its document is valid or not."""
    operations = sum(isinstance(definition, OperationDefinitionNode) for definition in document.definitions)
    # Its public property has the name of the first operation when the client gave none.
    if operations > 1 and context._provided_operation_name is None:  # noqa: SLF001
        return AMBIGUOUS
    if LONG_NUMBER.search(context.query or "") and (error := number_error(document)) is not None:
        # Core validation would fail on it.
        return error
    if not settings.CONTAINER_MANAGER.introspection and introspects(document):
        return NO_INTROSPECTION
    identity = context.context.identity
    large = identity is not None and identity.may(Role.OPERATOR) and submits_jobs(document)
    return variables_error(context.variables, document, MAX_BATCH_VALUES if large else MAX_VALUES)


def too_large(document: str) -> GraphQLError | None:
    """The error for a document that exceeds CONTAINER_MANAGER_MAX_DOCUMENT_BYTES; None for any other."""
    limit: int = settings.CONTAINER_MANAGER.max_document_bytes
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
        parsed = DocumentCache.known(document) or parse(document, max_tokens=MAX_TOKENS)
        operation = get_operation_ast(parsed, operation_name)
    except GraphQLError:
        return False
    return operation is not None and operation.operation is OperationType.SUBSCRIPTION
