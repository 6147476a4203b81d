"""Parses and validates each document once."""

from collections.abc import Iterator

from graphql import DocumentNode
from strawberry.extensions import SchemaExtension

MOST_DOCUMENTS = 256
LONGEST_DOCUMENT = 16_384


class DocumentCache(SchemaExtension):
    """Keeps documents that are valid, the most recently used ones.

    Strawberry's own caches also keep what failed; over WebSocket a cached syntax error then ends an operation
    without telling the client why.
    """

    _valid: dict[str, DocumentNode] = {}

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        query = context.query or ""
        if (known := self._valid.pop(query, None)) is not None:
            # Put back last: the first is the one that was not used for the longest time.
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
        if not context.pre_execution_errors and document is not None and len(query) <= LONGEST_DOCUMENT:
            self._valid[query] = document
            if len(self._valid) > MOST_DOCUMENTS:
                self._valid.pop(next(iter(self._valid)), None)
