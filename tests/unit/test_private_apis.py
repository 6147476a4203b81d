"""Parts of libraries that are private or not documented, and on which the code depends: each fails here first.

pyproject.toml caps the versions of these libraries.
"""

import importlib
import inspect
from contextlib import suppress
from importlib.metadata import requires
from typing import get_type_hints

import pytest
import strawberry
from aiodocker import Docker
from django.core.exceptions import ImproperlyConfigured
from django.db.models.base import ModelState
from graphql import GraphQLError
from graphql.execution import executor, values
from graphql.execution.executor import Executor
from graphql.language.parser import Parser
from graphql.validation.rules import overlapping_fields_can_be_merged
from packaging.requirements import Requirement
from strawberry.asgi import ASGIWebSocketAdapter, GraphQL
from strawberry.dataloader import DataLoader
from strawberry.http import async_base_view, streaming
from strawberry.http.streaming import SSETransport
from strawberry.schema import schema_converter
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.types.field import StrawberryField
from strawberry_django.fields import filter_types
from uvicorn import Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from graphql_api import view
from graphql_api.front_door import FrontDoor


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    "library", ["aiodocker", "django", "graphql-core", "starlette", "strawberry-graphql", "uvicorn"]
)
def test_the_version_of_a_library_with_such_parts_is_capped(library: str) -> None:
    declared = [Requirement(line) for line in requires("container-manager") or []]
    (found,) = [one for one in declared if one.name == library and one.marker is None]
    assert any(specifier.operator == "<" for specifier in found.specifier), found


def test_aiodocker_queries_by_path() -> None:
    assert {"path", "method", "params", "headers", "timeout"} <= set(parameters(Docker._do_query))
    assert {"path", "versioned_api"} <= set(parameters(Docker._query))


def test_graphql_core_executes_a_subscriptions_event_by_an_executor_of_its_own() -> None:
    assert "build_per_event_executor" in dir(Executor)
    assert issubclass(StrawberryGraphQLCoreExecutionContext, Executor)
    source = inspect.getsource(Executor)
    assert "_relevant_sub_fields" in source
    assert "_stream_usages" in source


@pytest.mark.parametrize(
    ("kind", "methods"),
    [
        (GraphQL, ("run", "parse_http_body", "execute_operation", "execute_single", "create_streaming_response")),
        (BaseGraphQLTransportWSHandler, ("run_operation", "handle_task_exception", "handle_subscribe", "send_message")),
        (ASGIWebSocketAdapter, ("iter_json", "close")),
        (SSETransport, ("encode_event", "encode_comment")),
    ],
)
def test_strawberrys_transports_have_the_overridden_methods(kind: type, methods: tuple[str, ...]) -> None:
    assert [name for name in methods if not callable(getattr(kind, name, None))] == []


def test_strawberrys_view_parses_media_types_by_the_kept_function() -> None:
    for module in (async_base_view, streaming):
        assert "parse_content_type(" in inspect.getsource(module)
        assert module.parse_content_type is view._media_type


def test_strawberrys_schema_has_the_overridden_methods() -> None:
    assert parameters(strawberry.Schema._execute_operation)[:2] == ["self", "execution_context"]
    assert parameters(strawberry.Schema._prepare_operation_async) == ["self", "context", "extensions_runner"]
    assert parameters(strawberry.Schema._handle_execution_result)[:3] == ["self", "context", "result"]
    # These call them for every operation, result and error.
    for method, prepared, handled in (
        (strawberry.Schema.execute, 1, 3),
        (strawberry.Schema._stream, 1, 5),
        (strawberry.Schema._stream_non_subscription, 0, 3),
    ):
        source = inspect.getsource(method)
        assert source.count("self._prepare_operation_async(") == prepared
        assert source.count("self._handle_execution_result(") == handled


def test_graphql_core_coerces_variables_by_the_replaced_functions() -> None:
    source = inspect.getsource(values.coerce_variable_values)
    assert "coerce_input_value(value, var_type)" in source
    assert "input_is_nested_too_deeply(value, var_type)" in source
    assert "get_variable_values(" in inspect.getsource(executor)


def test_strawberrys_handlers_have_the_attributes_that_are_read() -> None:
    assert {"view", "websocket", "context"} <= set(get_type_hints(BaseGraphQLTransportWSHandler)) | set(
        parameters(BaseGraphQLTransportWSHandler.__init__)
    )
    assert "completed" in inspect.getsource(Operation)
    assert "_get_pre_execution_close_reason(result.errors[0])" in inspect.getsource(BaseGraphQLTransportWSHandler)
    assert parameters(GraphQL.execute_single) == [
        "self", "request", "request_adapter", "sub_response", "context", "root_value", "request_data",
    ]  # fmt: skip
    assert "_provided_operation_name" in inspect.getsource(strawberry.types.ExecutionContext)
    assert {"load_fn", "cache"} <= set(parameters(DataLoader.__init__))


def test_graphql_core_executes_the_fields_of_an_object_in_one_method() -> None:
    assert parameters(Executor.execute_fields) == [
        "self", "parent_type", "source_value", "path", "grouped_field_set", "position_context",
    ]  # fmt: skip
    # What plain fields are answered by, past the resolvers of the library.
    assert "return self.default_resolver(source, self.python_name)" in inspect.getsource(StrawberryField.get_result)
    assert "_get_basic_result._is_default = True" in inspect.getsource(schema_converter)


def test_graphql_cores_parser_ends_at_its_last_token_also_when_it_fails() -> None:
    for text in ("{ a b }", "{ a b", "{ a b \1"):
        lexer = (parser := Parser(text, max_tokens=10))._lexer
        with suppress(GraphQLError):
            parser.parse_document()
        assert "b" in {lexer.token.value, lexer.token.prev.value, lexer.token.prev.prev.value}


def test_strawberry_django_does_without_geometry() -> None:
    with pytest.raises(ImproperlyConfigured):
        importlib.import_module("django.contrib.gis.geos")
    assert filter_types.GeometryFilterLookup is None


def test_graphql_cores_validation_has_a_budget() -> None:
    source = inspect.getsource(overlapping_fields_can_be_merged)
    assert "return MAX_COMPLEXITY_BUDGET" in source


def test_uvicorns_connections_have_the_overridden_methods_and_attributes() -> None:
    source = inspect.getsource(HttpToolsProtocol)
    overridden = [name for name, value in vars(FrontDoor).items() if callable(value) and not name.startswith("_")]
    assert [name for name in ("connection_made", "on_header", "on_response_complete") if name not in overridden] == []
    assert [name for name in dir(HttpToolsProtocol) if name in overridden] == sorted(overridden)
    used = ("cycle", "connections", "loop", "flow", "pipeline", "parser", "transport", "app", "config")
    assert [name for name in used if f"self.{name}" not in source] == []
    assert {"_should_upgrade", "_unsupported_upgrade_warning", "_unset_keepalive_if_required"} <= set(
        dir(HttpToolsProtocol)
    )


def test_uvicorns_servers_have_the_overridden_methods() -> None:
    assert "sockets" in parameters(Server.startup)
    assert {"init_processes", "handle_signals", "keep_subprocess_alive"} <= set(dir(Multiprocess))


def test_django_model_instances_have_a_state() -> None:
    # `ContainerJob.of` builds instances without Django's constructor.
    assert ModelState().adding
