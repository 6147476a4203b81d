"""Trusted documents: an installation may run only the documents of its own frontends, which name them by id.

The file is what frontend tools write: a JSON object of documents by id (GraphQL Code Generator, Relay), or Apollo's
persisted query manifest.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
from graphql import GraphQLError, GraphQLSchema, parse, validate

from container_manager.environment import PREFIX, ConfigurationError
from graphql_api.limits import MAX_TOKENS, RULES

NAME = f"{PREFIX}TRUSTED_DOCUMENTS"
NOT_TRUSTED = GraphQLError(
    f"query: this installation runs only the documents of its own clients ({NAME}).",
    extensions={"code": "FORBIDDEN"},
)
UNKNOWN = GraphQLError(
    f"documentId: there is no document of this id in {NAME}.",
    extensions={"code": "PERSISTED_QUERY_NOT_FOUND"},
)


class TrustedDocuments:
    """The documents of a file, by id, and those of the dashboard. Without a file every document may run."""

    def __init__(self, by_id: Mapping[str, str] | None = None, own: Iterable[str] = ()) -> None:
        self._by_id = by_id
        self._texts = frozenset([*by_id.values(), *own]) if by_id is not None else frozenset()

    @classmethod
    def load(cls, path: str, schema: GraphQLSchema, own: Iterable[str]) -> "TrustedDocuments":
        """Read the file and check each document against the schema. `own`: documents that may run besides.

        Raises:
            ConfigurationError: the file cannot be read, has another form, or has a document that is not valid.
        """
        if not path:
            return cls()
        try:
            content = orjson.loads(Path(path).read_bytes())
            operations = content.get("operations") if content.get("format") else None
            by_id = {one["id"]: one["body"] for one in operations} if operations else content
            texts = {str(key): text for key, text in by_id.items() if isinstance(text, str)}
        except OSError as error:
            raise ConfigurationError(f"{NAME}: {path} cannot be read: {error.strerror}.") from error
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise ConfigurationError(f"{NAME}: {path} must be a JSON object of documents by id.") from error
        if len(texts) != len(by_id) or not texts:
            raise ConfigurationError(f"{NAME}: {path} must be a JSON object of documents by id.")
        for key, text in texts.items():
            try:
                errors = validate(schema, parse(text, max_tokens=MAX_TOKENS), RULES)
            except GraphQLError as error:
                errors = [error]
            if errors:
                raise ConfigurationError(f"{NAME}: document {key!r} is not valid: {errors[0].message}")
        return cls(texts, own)

    def resolve(self, payload: Any) -> Any:
        """The payload of a request, with the text of the document that it names.

        Raises:
            GraphQLError: PERSISTED_QUERY_NOT_FOUND for an id that is not known; FORBIDDEN for another document.
        """
        if not isinstance(payload, dict):
            return payload
        if (key := _named(payload)) is not None:
            if (text := (self._by_id or {}).get(key)) is None:
                raise UNKNOWN
            return {**payload, "query": text}
        if self._by_id is not None and isinstance(payload.get("query"), str) and payload["query"] not in self._texts:
            raise NOT_TRUSTED
        return payload


def _named(payload: Mapping[str, Any]) -> str | None:
    """The id of a document, as the GraphQL over HTTP draft or Apollo's clients send it."""
    if payload.get("query"):
        return None
    named = payload.get("documentId")
    if named is None:
        extensions = payload.get("extensions")
        persisted = extensions.get("persistedQuery") if isinstance(extensions, dict) else None
        named = persisted.get("sha256Hash") if isinstance(persisted, dict) else None
    return named if isinstance(named, str) else None
