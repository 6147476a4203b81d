"""The commands `serve` and `demo`."""

import ipaddress
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from container_manager.cli.setup import setup
from container_manager.environment import ConfigurationError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from container_manager.cli.server import Workers

SHUTDOWN_SECONDS = 5

ROLES = ("all", "api", "worker")

host_option = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
port_option = click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one."
)


@click.command()
@host_option
@port_option
@click.option(
    "--role", type=click.Choice(ROLES), default="all", show_default=True, help="api: runs no jobs. worker: no API."
)
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes that share the port."
)
@click.option("--no-auth", is_flag=True, help="Every caller is an admin; only on a loopback address.")
def serve(host: str, port: int, role: str, workers: int, no_auth: bool) -> None:
    """Serve the API and run jobs."""
    setup()
    populate = "container_manager.bootstrap.register_local_engine" if role == "all" else ""
    _run(host, port, no_auth, populate, role, workers)


@click.command()
@host_option
@port_option
@click.option("--no-auth", is_flag=True, help="Every caller is an admin; only on a loopback address.")
def demo(host: str, port: int, no_auth: bool) -> None:
    """Serve a temporary database with a simulated fleet and a stream of jobs."""
    with tempfile.TemporaryDirectory(prefix="container-manager-demo-") as home:
        from container_manager import configuration

        os.environ["CONTAINER_MANAGER_HOME"] = home
        os.environ["CONTAINER_MANAGER_DATABASE_URL"] = f"sqlite:///{Path(home, 'demo.sqlite3')}"
        setup()
        if configuration.is_embedded():
            raise ConfigurationError(
                "demo has a database of its own: run `container-manager demo` outside of a project."
            )
        _run(host, port, no_auth, "container_manager.demo.run_demonstration", opens=True)


def _run(
    host: str, port: int, no_auth: bool, populate: str, role: str = "all", workers: int = 1, opens: bool = False
) -> None:
    from container_manager import configuration

    if not configuration.current().is_postgresql:
        for option, alone in ((f"--role {role}", role == "all"), (f"--workers {workers}", workers == 1)):
            if not alone:
                raise ConfigurationError(
                    f"{option} needs PostgreSQL (CONTAINER_MANAGER_DATABASE_URL): a SQLite database serves one "
                    "process, which has all roles."
                )
    if no_auth and not _is_loopback(host):
        raise ConfigurationError(f"--no-auth is refused on {host}: it makes every caller an admin. Bind to 127.0.0.1.")
    from container_manager import startup

    startup.prepare()
    secret = None if no_auth or role == "worker" else startup.first_token()
    if no_auth:
        click.echo("--no-auth: every client that reaches this port is an admin.", err=True)
    _raise_file_limit()
    listener = _listen(host, port)
    address = f"http://{_for_url(host)}:{listener.getsockname()[1]}/"
    ready = f"ready {address}" + (f" token={secret}" if secret else "")

    def on_ready() -> None:
        click.echo(ready)
        if opens:
            # For people; the line before is for programs.
            click.echo(f"Open {address}{f'#token={secret}' if secret else ''} in a browser.", err=True)

    started = _serve(partial(_application, no_auth, populate, role), workers, listener, on_ready)
    sys.exit(0 if started else 1)


def _serve(
    application: Callable[[], "Starlette"], workers: int, listener: socket.socket, on_ready: Callable[[], None]
) -> bool:
    """Serve until a signal stops the server; returns whether it has ever accepted connections."""
    import uvicorn
    from django.db import connections

    from container_manager.cli.server import Server, Workers
    from graphql_api.front_door import FrontDoor

    # Each server process opens its own connections.
    connections.close_all()
    config = uvicorn.Config(
        application,
        factory=True,
        workers=workers,
        http=FrontDoor,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        proxy_headers=False,
    )
    if workers > 1:
        return _supervise(Workers(config, [listener], on_ready))
    server = Server(config, on_ready)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again after its shutdown; a requested stop is a success.
        signal.signal(number, lambda *_: sys.exit(0))
    server.run(sockets=[listener])
    return server.started


def _supervise(workers: "Workers") -> bool:
    with tempfile.TemporaryDirectory(prefix="container-manager-metrics-") as folder:
        # The workers share their metrics in this folder, so that each of them can answer for all.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        workers.run()
    return workers.started


def _application(no_auth: bool, populate: str, role: str) -> "Starlette":
    """`populate` is an import path, because worker processes get it before they have loaded Django."""
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    setup()
    from django.utils.module_loading import import_string

    from graphql_api.application import make_application

    return make_application(
        no_auth=no_auth,
        populate=import_string(populate) if populate else None,
        serves=role != "worker",
        runs_jobs=role != "api",
    )


def _end_with(parent: BaseProcess) -> None:
    """Stop this worker process when its supervisor is gone, which SIGKILL gives no time to tell it."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _raise_file_limit() -> None:
    """Each connection takes a file descriptor, and some systems allow only 256 or 1,024 unless asked for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise ConfigurationError(f"Cannot listen on {host}:{port}: {error.strerror}. See --host and --port.") from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _for_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
