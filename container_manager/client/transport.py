"""GraphQL over HTTP, and subscriptions as Server-Sent Events, which need no more than a request."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Protocol, TypeVar

import httpx
import httpx_sse
from pydantic import BaseModel

from container_manager.client.errors import RequestFailed, Unreachable, of_api

T = TypeVar("T", bound="_Positioned")

TIMEOUT_SECONDS = 65.0
"""A little longer than the service works on an operation."""

SILENCE_SECONDS = 45.0
"""A stream that is silent for so long is broken: the service sends a sign of life every 15 seconds."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class _Positioned(Protocol):
    @property
    def cursor(self) -> str: ...


class Transport:
    """The connections to a service. `AsyncClient` describes the arguments."""

    def __init__(self, url: str, token: str | None, patience: float, http: httpx.AsyncClient | None) -> None:
        self.url = url.rstrip("/")
        self.patience = patience
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = http
        self._owns_http = http is None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None and self._owns_http:
            await self._http.aclose()
            self._http = None

    @property
    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            # Each stream has a connection of its own, and they may be many.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
            # Reading all certificates takes longer than most requests, and only HTTPS needs them.
            verify = self.url.startswith("https:")
            self._http = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, limits=limits, verify=verify)
        return self._http

    async def execute(
        self,
        query: str,
        operation_name: str | None = None,
        variables: Mapping[str, object] | None = None,
        *,
        repeatable: bool | None = None,
    ) -> httpx.Response:
        """Send an operation, again and again while the service does not answer and `patience` lasts.

        Args:
            query: the document.
            operation_name: the operation in the document.
            variables: JSON, values and inputs.
            repeatable: whether the operation may reach the service twice; by default only a query may. One that may not
                is sent again only if it has not reached the service.

        Raises:
            Unreachable: there was no answer.
        """
        body = _body(query, operation_name, variables)
        headers = {**self._headers, "Accept": "application/json"}
        if repeatable is None:
            repeatable = query.lstrip().startswith(("query", "{"))
        pauses = _Pauses(self.patience)
        while True:
            try:
                response = await self._post(body, headers)
                if repeatable:
                    # Raises for what the service cannot answer now.
                    self.get_data(response)
            except Unreachable as error:
                if pauses.are_over or not (repeatable or isinstance(error.__cause__, httpx.ConnectError)):
                    raise
            else:
                return response
            await pauses.pause()

    async def _post(self, body: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        with _reported(self.url):
            return await self._client.post(f"{self.url}/graphql", json=body, headers=headers)

    def get_data(self, response: httpx.Response) -> dict[str, Any]:
        """The data of an answer.

        Raises:
            ClientError: the answer has errors; the first is raised.
        """
        return _data(_payload(response))

    async def execute_ws(
        self,
        query: str,
        operation_name: str | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The data of each value of a subscription, until it is complete.

        Raises:
            Unreachable: the connection was lost.
            ClientError: a value has errors.
        """
        body = _body(query, operation_name, variables)
        headers = {**self._headers, "Accept": "text/event-stream"}
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=SILENCE_SECONDS)
        address = f"{self.url}/graphql"
        state = _Connection()
        with _reported(self.url, state):
            async with httpx_sse.aconnect_sse(
                self._client, "POST", address, json=body, headers=headers, timeout=timeout
            ) as source:
                if "text/event-stream" not in source.response.headers.get("content-type", ""):
                    await source.response.aread()
                    self.get_data(source.response)
                state.is_open = True
                async for event in source.aiter_sse():
                    if event.event == "complete":
                        return
                    yield _data(event.json())
                raise httpx.RemoteProtocolError("the connection was lost")

    async def resumed(
        self, opened: Callable[[str | None], AsyncGenerator[T, None]], after: str | None, *, endless: bool
    ) -> AsyncGenerator[T, None]:
        """The values of a subscription, each once and in order: after a disconnect it goes on after the last cursor.

        Args:
            opened: opens the subscription after a cursor.
            after: the cursor to begin after.
            endless: the subscription is complete only because its server stops.

        Raises:
            Unreachable: the service did not answer for `patience` seconds.
        """
        pauses = None
        while True:
            try:
                async with aclosing(opened(after)) as values:
                    async for value in values:
                        after, pauses = value.cursor, None
                        yield value
                if not endless:
                    return
            except Unreachable as error:
                # The patience begins when the service goes away, however long it had nothing to tell.
                pauses = None if error.was_connected else pauses
                if pauses is not None and pauses.are_over:
                    raise
            pauses = pauses or _Pauses(self.patience)
            await pauses.pause()


class _Pauses:
    """Between tries that fail: longer and longer, and over after `patience` seconds."""

    def __init__(self, patience: float) -> None:
        self._until = time.monotonic() + patience
        self._next = FIRST_PAUSE

    @property
    def are_over(self) -> bool:
        return time.monotonic() >= self._until

    async def pause(self) -> None:
        # Not all clients of a server that was restarted come back in the same moment.
        await asyncio.sleep(self._next * random.uniform(0.5, 1))  # noqa: S311 - no secret
        self._next = min(self._next * 2, LONGEST_PAUSE)


def _body(query: str, operation_name: str | None, variables: Mapping[str, object] | None) -> dict[str, Any]:
    given = {name: _plain(value) for name, value in (variables or {}).items()}
    return {"query": query, "operationName": operation_name, "variables": given}


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


class _Connection:
    """Whether a stream has begun."""

    is_open = False


@contextmanager
def _reported(url: str, connection: _Connection | None = None) -> Iterator[None]:
    """Raise Unreachable for the errors of httpx."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise RequestFailed(
            f"{url} is not the address of a service: it must begin with http:// or https://.", ""
        ) from error
    except httpx.TransportError as error:
        lost = Unreachable(f"{url} does not answer: {str(error) or type(error).__name__}.")
        lost.was_connected = connection is not None and connection.is_open
        raise lost from error


def _payload(response: httpx.Response) -> dict[str, Any]:
    try:
        payload = response.json()
    except ValueError:
        payload = None
    if not isinstance(payload, dict) or not payload.keys() & {"data", "errors"}:
        url = f"{response.url.scheme}://{response.url.netloc.decode()}"
        message = f"{url} answers with the status {response.status_code} and no GraphQL; is it the right address?"
        # What a proxy answers while the service is away may change; the others will not.
        raise Unreachable(message) if response.is_server_error else RequestFailed(message, "")
    return payload


def _data(payload: dict[str, Any]) -> dict[str, Any]:
    if errors := payload.get("errors"):
        raise of_api(errors[0])
    data: dict[str, Any] = payload["data"]
    return data
