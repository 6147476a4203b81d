"""An engine behind mutual TLS: the real client and a real engine, with a proxy that speaks TLS in between."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from container_manager.executors.base import Execution, ExecutorSettings, LaunchSpec
from container_manager.executors.docker import DockerExecutor
from container_manager.executors.exceptions import ExecutorConnectionError
from tests.certificates import Authority
from tests.engines import Engine


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def port(engine: Engine, authority: Authority, tmp_path: Path) -> AsyncIterator[int]:
    """Where the engine is reached by TLS, by clients with a certificate of the authority."""
    certificate, key = authority.issue("localhost")
    (tmp_path / "server.pem").write_text(certificate + key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.pem)
    context.load_cert_chain(tmp_path / "server.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    connections: set[asyncio.Task] = set()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(engine.socket))
        try:
            await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))
        finally:
            writer.close()
            inner_writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0, ssl=context)
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
