"""An engine behind mutual TLS: the real client and a real engine, with a proxy that speaks TLS in between."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from container_manager.executors.base import Execution, ExecutorSettings, LaunchSpec
from container_manager.executors.docker import DockerExecutor
from container_manager.executors.exceptions import ExecutorConnectionError
from tests.certificates import Authority
from tests.engines import Engine
from tests.eventually import eventually


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def server_context(authority: Authority, folder: Path, clients: Authority | None = None) -> ssl.SSLContext:
    """A server with a certificate of the authority, for clients with one of `clients` or of the same authority."""
    certificate, key = authority.issue("localhost")
    (folder / "server.pem").write_text(certificate + key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=(clients or authority).pem)
    context.load_cert_chain(folder / "server.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
async def port(engine: Engine, authority: Authority, tmp_path: Path) -> AsyncIterator[int]:
    """Where the engine is reached by TLS, by clients with a certificate of the authority."""
    async with tls_server(engine, server_context(authority, tmp_path)) as port:
        yield port


@asynccontextmanager
async def tls_server(engine: Engine, context: ssl.SSLContext, port: int = 0) -> AsyncIterator[int]:
    connections: set[asyncio.Task] = set()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(engine.socket))
        try:
            await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))
        finally:
            writer.close()
            inner_writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", port, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in connections:
        task.cancel()
    await asyncio.gather(*connections, return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()


@pytest.mark.parametrize("scheme", ["tcp", "https"])
@pytest.mark.parametrize("as_files", [False, True])
async def test_a_job_runs_over_mutual_tls(
    port: int, authority: Authority, tmp_path: Path, scheme: str, as_files: bool
) -> None:
    certificate, key = authority.issue("client")
    tls = {"ca": authority.pem, "cert": certificate, "key": key}
    if as_files:
        for name, text in tls.items():
            (tmp_path / name).write_text(text)
        tls = {name: str(tmp_path / name) for name in tls}
    config = {"url": f"{scheme}://127.0.0.1:{port}", "tls": tls}
    executor = DockerExecutor(ExecutorSettings("tls", config, instance="tls"))
    assert await executor.health_check()
    spec = LaunchSpec(1, 1, f"cm-tls-{scheme}-{as_files}", "busybox:test", ("echo", "over tls"), {}, 32, 100)
    execution = Execution(await executor.create(spec), spec)
    await executor.start(execution)
    assert (await executor.wait(execution)).exit_code == 0
    assert [line.text for line in await executor.logs(execution)] == ["over tls"]
    await executor.remove(execution.id)
    await executor.remove(execution.id)
    await executor.aclose()


@pytest.mark.parametrize("renewed", ["everything", "client"])
async def test_certificates_that_are_renewed_in_their_files_are_read_again(
    engine: Engine, authority: Authority, tmp_path: Path, renewed: str
) -> None:
    def renew() -> ssl.SSLContext:
        clients = Authority()
        server = clients if renewed == "everything" else authority
        certificate, key = clients.issue("client")
        for name, text in {"ca": server.pem, "cert": certificate, "key": key}.items():
            (tmp_path / name).write_text(text)
        return server_context(server, tmp_path, clients)

    tls = {name: str(tmp_path / name) for name in ("ca", "cert", "key")}
    async with tls_server(engine, renew()) as port:
        config = {"url": f"https://127.0.0.1:{port}", "tls": tls}
        executor = DockerExecutor(ExecutorSettings("tls", config, instance="renewed"))
        spec = LaunchSpec(1, 1, "cm-renewed-1", "busybox:test", ("sleep", "2"), {}, 32, 100)
        execution = Execution(await executor.create(spec), spec)
        await executor.start(execution)
        waiting = asyncio.create_task(executor.wait(execution))
        await eventually(lambda: executor.watcher.is_watching)
    async with tls_server(engine, renew(), port):
        with suppress(ExecutorConnectionError):
            # Whether the first call fails depends on who notices the new certificates first.
            await executor.health_check()
        assert await executor.health_check()
        with suppress(ExecutorConnectionError):
            await waiting
        assert (await executor.wait(execution)).exit_code == 0
        await executor.remove(execution.id)
        await executor.aclose()


async def test_a_server_that_is_not_trusted_is_refused(port: int, authority: Authority) -> None:
    certificate, key = authority.issue("client")
    stranger = {"ca": Authority().pem, "cert": certificate, "key": key}
    executor = DockerExecutor(ExecutorSettings("tls", {"url": f"https://127.0.0.1:{port}", "tls": stranger}))
    with pytest.raises(ExecutorConnectionError, match="cannot be reached: TLS: certificate signature failure"):
        await executor.health_check()


async def test_a_client_without_a_certificate_is_refused(port: int, authority: Authority) -> None:
    executor = DockerExecutor(
        ExecutorSettings("tls", {"url": f"https://127.0.0.1:{port}", "tls": {"ca": authority.pem}})
    )
    with pytest.raises(ExecutorConnectionError):
        await executor.health_check()
