"""GraphQL over HTTP: media types and statuses, as its specification has them (https://graphql.github.io/graphql-over-http).

Under `application/json` every well-formed answer has the status 200, for clients that predate the specification.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from django.http.request import MediaType

JSON, GRAPHQL_JSON = "application/json", "application/graphql-response+json"

STATUSES = {"UNAUTHENTICATED": 401, "FORBIDDEN": 403, "UNAVAILABLE": 503, "INTERNAL": 500, "TIMEOUT": 504}
"""By the code of an error that leaves no data."""


@lru_cache
def preferred_type(accept: str) -> str:
    """The media type of the answer for an Accept header; JSON when the client has no preference."""
    ranges = [(position, MediaType(part)) for position, part in enumerate(accept.split(",")) if part.strip()]

    def rank(offered: str) -> tuple[float, int, int]:
        fitting = [(one.specificity, -position, one.quality) for position, one in ranges if one.match(offered)]
        specificity, position, quality = max(fitting, default=(0, -len(ranges), 0.0))
        return quality, specificity, position

    return GRAPHQL_JSON if rank(GRAPHQL_JSON) > rank(JSON) else JSON


@lru_cache
def is_json(content_type: str) -> bool:
    """Whether a request's body is JSON in UTF-8."""
    given = MediaType(content_type)
    kind = f"{given.main_type}/{given.sub_type}".lower()
    charset = str(given.params.get("charset", "utf-8")).lower()
    return kind == JSON and charset in {"utf-8", "utf8"}


def status_of(answer: Mapping[str, Any]) -> int:
    """The status of an answer under `application/graphql-response+json`."""
    errors = answer.get("errors") or []
    if answer.get("data") is not None or not errors:
        return 200
    for error in errors:
        if (status := STATUSES.get(error.get("extensions", {}).get("code"))) is not None:
            return status
    # Without a path, nothing was executed.
    return 200 if any(error.get("path") for error in errors) else 400
