"""How errors reach clients: domain errors as members of unions, all others masked, with an incident id for the log."""

import logging
import secrets
from typing import Any

import strawberry
from graphql import GraphQLError, GraphQLSyntaxError
from strawberry.exceptions import MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError

from container_manager import errors
from container_manager.observability import metrics
from container_manager.store import threads
from graphql_api.types import results

REQUEST_ERRORS = (CannotGetOperationTypeError, InvalidOperationTypeError, MissingQueryError)

UNAVAILABLE = GraphQLError(
    "The database does not answer; try again. A mutation may have had its effect.",
    extensions={"code": "UNAVAILABLE"},
)

SHOWN: dict[type, str] = {threads.TookTooLong: "TIMEOUT", errors.Unavailable: "UNAVAILABLE"}
"""Errors whose text is meant for clients, with their codes."""

logger = logging.getLogger(__name__)


def as_type(error: errors.UserError) -> Any:
    """The union member for this error."""
    if isinstance(error, errors.ValidationFailed):
        return results.ValidationFailed(message=str(error), fields=[_field_error(entry) for entry in error.fields])
    if isinstance(error, errors.Conflict):
        return results.Conflict(message=str(error), field=error.field)
    return results.NotFound(message=str(error))


def _field_error(error: errors.FieldError) -> results.FieldError:
    reason = error.message.removeprefix(f"{error.field}: ")
    return results.FieldError(field=error.field, message=error.message, reason=reason[:1].upper() + reason[1:])


class _AsValidationFailed(strawberry.ExceptionHandler[errors.ValidationFailed, results.ValidationFailed]):
    def handle(self, exception: errors.ValidationFailed, **_: Any) -> Any:
        return as_type(exception)


class _AsNotFound(strawberry.ExceptionHandler[errors.NotFound, results.NotFound]):
    def handle(self, exception: errors.NotFound, **_: Any) -> Any:
        return as_type(exception)


class _AsConflict(strawberry.ExceptionHandler[errors.Conflict, results.Conflict]):
    def handle(self, exception: errors.Conflict, **_: Any) -> Any:
        return as_type(exception)


HANDLERS = (_AsValidationFailed(), _AsNotFound(), _AsConflict())


def shown(errors: list[GraphQLError]) -> list[GraphQLError]:
    """Errors as clients see them: those that are meant for clients, and all others masked."""
    found = [_masked(error) if _is_internal(error) else error for error in errors]
    for error in found:
        if not error.extensions and error.path is None:
            # Validation has set its code; what is left are values of variables.
            is_syntax = isinstance(error, GraphQLSyntaxError)
            error.extensions = {"code": "GRAPHQL_PARSE_FAILED" if is_syntax else "BAD_USER_INPUT"}
    for error in errors:
        _forget_frames(error)
    with metrics.never_failing():
        for error in found:
            metrics.ERRORS.labels(str((error.extensions or {}).get("code", ""))).inc()
    return found


def _masked(error: GraphQLError) -> GraphQLError:
    cause = error.original_error
    if isinstance(cause, REQUEST_ERRORS):
        message = "query: this operation does not exist, or is not allowed over this transport."
        return GraphQLError(message, extensions={"code": "BAD_USER_INPUT"})
    if (code := SHOWN.get(type(cause))) is not None:
        logger.warning("at %s: %s", error.path, cause)
        return _instead_of(error, str(cause), code=code)
    if isinstance(cause, threads.DATABASE_AWAY):
        logger.warning("at %s: %r", error.path, cause)
        return _instead_of(error, UNAVAILABLE.message, code="UNAVAILABLE")
    incident = secrets.token_hex(4)
    logger.error("incident %s at %s", incident, error.path, exc_info=cause)
    message = f"An internal error occurred; the log describes it under incident {incident}."
    return _instead_of(error, message, code="INTERNAL", incident=incident)


def _instead_of(error: GraphQLError, message: str, **extensions: str) -> GraphQLError:
    """An error at the place of another."""
    return GraphQLError(message, error.nodes, error.source, error.positions, error.path, extensions=extensions)


def _forget_frames(error: BaseException | None) -> None:
    """Let go of the frames that an error was raised through.

    They refer to each other in a circle, with all that was read for the answer, so that only the garbage collector
    would free it.
    """
    while error is not None:
        error.__traceback__ = None
        error = getattr(error, "original_error", None) or error.__cause__ or error.__context__


def _is_internal(error: GraphQLError) -> bool:
    return error.original_error is not None and not isinstance(error.original_error, GraphQLError)
