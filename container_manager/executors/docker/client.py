"""The connection to one Docker engine: deadlines, streamed answers, and errors as executors raise them.

It uses two private methods of aiodocker (`_do_query` and `_query`) and sets its `api_version`, because the public
ones hide an answer's status, merge streams, or leak their connection when they are left early. pyproject.toml caps the
version, and tests/unit/test_private_apis.py fails when these methods change.
"""

import asyncio
import json
import logging
import os
import re
import ssl
import stat
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from http import HTTPStatus
from typing import Any

import aiohttp
from aiodocker import Docker, DockerError

from container_manager import bounded_json
from container_manager.aio import start_detached
from container_manager.executors.configs import TLS, DockerConfig
from container_manager.executors.docker import dialect
from container_manager.executors.docker.dialect import DOCKER, Dialect
from container_manager.executors.docker.errors import UNREACHABLE, reason_of, words_of
from container_manager.executors.exceptions import (
    ExecutorClosedError,
    ExecutorConnectionError,
    ExecutorHostError,
    ExecutorOperationError,
)

logger = logging.getLogger(__name__)

API_VERSION = re.compile(r"\d{1,2}\.\d{1,3}", re.ASCII)
LARGEST_ANSWER, LARGEST_LIST = 1024 * 1024, 16 * 1024 * 1024
"""Bytes of an answer that is not a stream, and of the list of containers: ten thousand take as much."""

BYTES_PER_VALUE = 32
"""At least, in the answers of engines: only to read one with more values would hold up everything else."""

LARGEST_FILE = 1024 * 1024

REDIRECTS = frozenset({301, 302, 303, 307, 308})
PEM = "-----BEGIN "
OTHER_VERSION = re.compile(r"client version \S+ is too (old|new)", re.IGNORECASE)
NOT_THE_ENGINE = re.compile(r"HTTP request to an HTTPS server|plain HTTP request was sent to HTTPS port", re.IGNORECASE)
"""Said of the connection, before the engine has read what is asked for."""


class UntrueAnswerError(aiohttp.ClientError):
    """An answer that no engine gives."""


class Answer(aiohttp.ClientResponse):
    """An answer of an engine, which is bounded and leads nowhere else."""

    async def start(self, connection: Any) -> "Answer":
        """Read the head."""
        await super().start(connection)
        if self.status in REDIRECTS:
            raise UntrueAnswerError("it redirects to another address")
        return self

    async def read(self) -> bytes:
        """Read the body, at most LARGEST_ANSWER or LARGEST_LIST bytes."""
        if self._body is None:
            pieces, size, most = [], 0, self._most()
            async for piece in self.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                if size > most:
                    self.close()
                    raise UntrueAnswerError(f"an answer is larger than {most // 1024 // 1024} MiB")
            self._body = b"".join(pieces)
        return await super().read()

    async def json(self, **_: Any) -> Any:
        """Read the body as JSON, with fewer values than its size allows."""
        try:
            return bounded_json.loads(await self.read(), self._most() // BYTES_PER_VALUE)
        except bounded_json.TooManyValuesError as error:
            raise UntrueAnswerError(f"an answer is too large: {error}") from error

    def _most(self) -> int:
        return LARGEST_LIST if self.url.path.endswith("/containers/json") else LARGEST_ANSWER


class Engine(Docker):
    """aiodocker's client with what the engine says about itself; an engine may be upgraded at any time."""

    dialect = DOCKER

    async def close(self) -> None:
        """Close the connections."""
        await super().close()
        await self.session.close()

    async def learn(self) -> None:
        """Ask which engine it is and which version of the API it speaks.

        Raises:
            KeyError, ValueError: it does not answer as an engine does.
        """
        async with self._query("_ping", versioned_api=False) as response:
            # It becomes part of each path that is asked for.
            if not API_VERSION.fullmatch(version := response.headers["Api-Version"]):
                raise ValueError("this is no version of the API")
            self.api_version = f"v{version}"
            self.dialect = dialect.of_ping(response.headers)
            # Otherwise its connection is not given back.
            await response.read()

    async def _do_query(self, path: Any, method: str, **options: Any) -> aiohttp.ClientResponse:
        spoken = self.api_version
        try:
            return await super()._do_query(path, method, **options)
        except DockerError as error:
            if error.status != HTTPStatus.BAD_REQUEST or not OTHER_VERSION.search(error.message):
                raise
            # The engine was upgraded and has done nothing yet. Another call may have learned its new version already.
            if self.api_version == spoken:
                await self.learn()
            if self.api_version == spoken:
                raise
            return await super()._do_query(path, method, **options)


class EngineClient:
    """One engine. What it says about itself, and certificates, are read again after each connection that broke."""

    def __init__(self, host_name: str, config: DockerConfig, connect_timeout: float) -> None:
        self._where = f"host {host_name}"
        self._config = config
        self._connect_timeout = connect_timeout
        self._docker: Engine | None = None
        self._dialect = DOCKER
        # Those whose connection broke, until the last call that uses them has ended.
        self._broken: set[Engine] = set()
        self._users: Counter[Engine] = Counter()
        self._closing: set[asyncio.Task[object]] = set()
        self._connecting = asyncio.Lock()
        self._deadlines: set[asyncio.Timeout] = set()
        self._closed = False

    @property
    def dialect(self) -> Dialect:
        """The kind of engine that has answered last."""
        return self._docker.dialect if self._docker is not None else self._dialect

    @asynccontextmanager
    async def call(self, doing: str, deadline: float | None) -> AsyncIterator[Engine]:
        """aiodocker's client, with a deadline in seconds over the block.

        Raises:
            ExecutorConnectionError: no answer within the deadline, or no connection.
            ExecutorClosedError: the client was closed meanwhile.
            ExecutorHostError: the address does not lead to an engine.
            ExecutorOperationError: the engine answered with an error; its cause is aiodocker's DockerError.
        """
        async with self._within(doing, deadline):
            docker = await self._client()
            with self._using(docker):
                yield docker

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        doing: str,
        params: Mapping[str, Any],
        patience: float | None = None,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> AsyncIterator["Stream"]:
        """An answer that is read piece by piece, each within `patience` seconds; its connection closes with the block.

        Raises:
            ExecutorError: as `call`.
        """
        with ExitStack() as stack:
            async with self._within(doing, patience):
                docker = await self._client()
                stack.enter_context(self._using(docker))
                response = await docker._do_query(  # noqa: SLF001
                    path, method, params=params, headers=headers, data=data, timeout=None
                )
                stack.callback(response.close)
            yield Stream(response, lambda: self._within(doing, patience))

    @asynccontextmanager
    async def _within(self, doing: str, deadline: float | None) -> AsyncIterator[None]:
        """A deadline over the block, and the errors of its calls as those of an executor."""
        try:
            async with asyncio.timeout(deadline) as scope:
                self._deadlines.add(scope)
                try:
                    yield
                finally:
                    self._deadlines.discard(scope)
        except DockerError as error:
            if error.status == UNREACHABLE:
                self._reconnect()
                message = f"{self._where}: {self._config.url} cannot be reached: {reason_of(error)}."
                raise ExecutorConnectionError(message) from error
            if error.status == HTTPStatus.BAD_REQUEST and NOT_THE_ENGINE.search(error.message):
                raise ExecutorHostError(f"{self._where}: config.url or config.tls: {words_of(error)}") from error
            raise ExecutorOperationError(words_of(error)) from error
        except TimeoutError as error:
            if self._closed:
                raise ExecutorClosedError(f"{self._where}: its settings were changed while {doing}.") from error
            within = "" if deadline is None else f" in {deadline:g} s"
            raise ExecutorConnectionError(f"{self._where}: no answer{within} while {doing}.") from error
        except UntrueAnswerError as error:
            self._reconnect()
            raise ExecutorHostError(f"{self._where}: config.url does not lead to an engine: {error}.") from error
        except (aiohttp.ClientError, EOFError, OSError, json.JSONDecodeError) as error:
            self._reconnect()
            raise ExecutorConnectionError(f"{self._where}: the connection broke while {doing}.") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Of aiodocker, from an answer that has not the form of an engine's.
            logger.warning("%s: an answer was not understood while %s", self._where, doing, exc_info=error)
            message = f"{self._where}: the engine gave an answer that was not understood while {doing}."
            raise ExecutorOperationError(message) from error

    @contextmanager
    def _using(self, docker: Engine) -> Iterator[None]:
        """Keep the client open for the block, also when the next calls get a new one."""
        self._users[docker] += 1
        try:
            yield
        finally:
            self._users[docker] -= 1
            self._close_unused()

    async def check_new_connection(self) -> None:
        """Open another connection and close it: an engine that is shutting down accepts none.

        Raises:
            ExecutorError: as `call`.
        """
        async with self.call("opening a new connection", self._connect_timeout):
            await _disconnect(await self._open())

    def refuse_calls(self) -> None:
        """From now on every call raises ExecutorClosedError."""
        self._closed = True

    async def aclose(self) -> None:
        """Close the connection; calls in progress raise ExecutorClosedError."""
        self.refuse_calls()
        for scope in self._deadlines:
            with suppress(RuntimeError):  # its block has ended already
                scope.reschedule(0)
        docker, self._docker = self._docker, None
        await asyncio.gather(*self._closing, *(_disconnect(open_) for open_ in {docker, *self._broken} if open_))
        self._broken.clear()

    def _reconnect(self) -> None:
        """Let the next call open a new client, because a connection broke. Calls in progress keep theirs."""
        if self._docker is not None:
            self._broken.add(self._docker)
            self._docker = None
            self._close_unused()

    def _close_unused(self) -> None:
        for docker in [docker for docker in self._broken if not self._users[docker]]:
            self._broken.discard(docker)
            del self._users[docker]
            start_detached(_disconnect(docker), "closing a broken connection", self._closing)

    async def _client(self) -> Engine:
        async with self._connecting:
            if self._docker is None and not self._closed:
                docker = await self._open()
                if self._closed:
                    await _disconnect(docker)
                else:
                    self._docker, self._dialect = docker, docker.dialect
        if self._closed or self._docker is None:
            raise ExecutorClosedError(f"{self._where}: its settings were changed.")
        return self._docker

    async def _open(self) -> Engine:
        """A client whose engine has answered, with the API version that the engine speaks."""
        # Certificates may be files, which may be slow to read.
        tls = self._config.tls
        context = None if tls is None else await asyncio.to_thread(_ssl_context, tls)
        docker = _connect(self._config.url, context)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await docker.learn()
        except (ValueError, KeyError) as error:
            await _disconnect(docker)
            raise ExecutorHostError(f"config.url: {self._config.url!r} is not a Docker engine's address.") from error
        except BaseException:
            await _disconnect(docker)
            raise
        return docker


class Stream:
    """An answer whose head has arrived."""

    def __init__(
        self, response: aiohttp.ClientResponse, within: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        self.response = response
        self._within = within

    async def piece(self) -> bytes:
        """The bytes that have arrived; b"" at the end."""
        async with self._within():
            return await self.response.content.readany()

    async def rest(self) -> bytes:
        """Everything up to the end."""
        async with self._within():
            return await self.response.read()

    async def line(self) -> bytes:
        """The next line; b"" at the end."""
        async with self._within():
            return await self.response.content.readline()


async def _disconnect(docker: Engine) -> None:
    await docker.close()
    await docker.connector.close()


def _connect(url: str, context: ssl.SSLContext | None) -> Engine:
    url = url.rstrip("/")
    if url.startswith("unix://"):
        return _engine("unix://localhost", aiohttp.UnixConnector(url.removeprefix("unix://"), limit=0))
    if context is not None:
        # aiodocker speaks plain HTTP to tcp:// addresses whatever the context.
        url = re.sub(r"^\w+://", "https://", url)
    elif url.startswith("tcp://"):
        url = url.replace("tcp://", "http://", 1)
    return _engine(url, aiohttp.TCPConnector(ssl=context if context is not None else True, limit=0))


def _engine(url: str, connector: aiohttp.BaseConnector) -> Engine:
    session = aiohttp.ClientSession(
        connector=connector, connector_owner=False, timeout=aiohttp.ClientTimeout(), response_class=Answer
    )
    return Engine(url, connector=connector, session=session)


def _ssl_context(tls: TLS) -> ssl.SSLContext:
    """Raises ExecutorHostError when the certificates or their paths are invalid."""
    ca, cert, key = [_pem(getattr(tls, name), name) for name in ("ca", "cert", "key")]
    try:
        context = ssl.create_default_context(cadata=ca or None)
        if not tls.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if cert:
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(f"{cert}\n{key}\n")
                file.flush()
                context.load_cert_chain(file.name)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ExecutorHostError(f"config.tls: the certificates cannot be used: {error}.") from error
    return context


def _pem(value: str, name: str) -> str:
    """The PEM text, read from a file on the server when `value` is a path. No message repeats it: it may be a key."""
    if not value or PEM in value:
        return value
    try:
        with open(value, opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            # The kernel gives its own files, such as those in /proc, the size 0.
            text = file.read(LARGEST_FILE + 1) if stat.S_ISREG(status.st_mode) else None
            if text is None or len(text) > LARGEST_FILE:
                raise ExecutorHostError(f"config.tls.{name}: the path must be that of a file of at most 1 MiB.")
            return text
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise ExecutorHostError(
            f"config.tls.{name}: it is neither PEM text nor the path of a file that can be read: {why}."
        ) from error


def _without_waiting(path: str, flags: int) -> int:
    # Opening a pipe would otherwise wait for its writer.
    return os.open(path, flags | os.O_NONBLOCK)
