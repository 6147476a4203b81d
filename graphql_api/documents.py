"""GraphQL documents: their size, their kind, and a cache of those that are valid."""

from collections.abc import Iterator

from django.conf import settings
from graphql import DocumentNode, GraphQLError, OperationType, get_operation_ast, parse
from strawberry.extensions import SchemaExtension

from graphql_api.limits import MAX_TOKENS

CACHED_DOCUMENTS = 256
LONGEST_CACHED = 16_384


class DocumentCache(SchemaExtension):
    """Parses and validates each document once; keeps the most recently used valid ones.

    Strawberry's own caches also keep documents that failed. Over WebSocket, a cached syntax error would then end an
    operation without telling the client why.
    """

    _valid: dict[str, DocumentNode] = {}

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
        if self._valid.get(query) is document and document is not None:
            context.pre_execution_errors = []
            yield
            return
        yield
        if not context.pre_execution_errors and document is not None and len(query) <= LONGEST_CACHED:
            self._valid[query] = document
            if len(self._valid) > CACHED_DOCUMENTS:
                self._valid.pop(next(iter(self._valid)), None)


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
        operation = get_operation_ast(parse(document, max_tokens=MAX_TOKENS), operation_name)
    except GraphQLError:
        return False
    return operation is not None and operation.operation is OperationType.SUBSCRIPTION
