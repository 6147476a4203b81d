"""Fixtures shared by all tests."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.sync import sync_to_async
from django.contrib.contenttypes.models import ContentType
from django.db import connection

from container_manager.domain.kinds import Role
from container_manager.models import ExecutorHost
from container_manager.service import Service, running
from container_manager.store.writer import Writer
from tests import engines, postgres
from tests.api import SIMULATED
from tests.client import CREATE_HOST, Api
from tests.cloudrun import CloudRun
from tests.engines import Engine, Podman
from tests.loops import running_writer
from tests.postgres import Postgres
from tests.server import make_token, serving

IN_CI = os.environ.get("CI") == "true"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Reads and writes use several threads, so a test cannot be wrapped in one transaction."""
    for item in items:
        if "unit" not in item.path.parts:
            item.add_marker(pytest.mark.django_db(transaction=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"In CI nothing may skip: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """A PostgreSQL database is only dropped when the threads of the store have let it go."""
    yield
    with django_db_blocker.unblock():
        if connection.vendor == "postgresql":
            connection.cursor().execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@pytest.fixture(scope="session", autouse=True)
def _quick_flush() -> Iterator[None]:
    """After each test, Django would make the permissions of all models again, which no test needs."""
    with patch("django.core.management.commands.flush.emit_post_migrate_signal") as emit:
        emit.side_effect = lambda *_, **__: ContentType.objects.clear_cache()
        yield


def _started(kind: type[Engine | Podman | Postgres], why: str | None) -> Iterator[Any]:
    if why is not None:
        pytest.skip(why)
    started = kind().start()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine that all tests share."""
    yield from _started(Engine, engines.missing())


@pytest.fixture(autouse=True)
def _no_container_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test empties the tables, and a service leaves containers alone whose jobs it does not know."""
    shared = [request.getfixturevalue(name) for name in ("engine", "podman") if name in request.fixturenames]
    yield
    for one in shared:
        one.remove_containers()


@pytest.fixture
def other_engine() -> Iterator[Engine]:
    """A Docker engine that one test may mistreat."""
    yield from _started(Engine, engines.missing())


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """A Podman that all tests share."""
    yield from _started(Podman, engines.podman_missing())


@pytest.fixture
def cloudrun() -> Iterator[CloudRun]:
    """A Cloud Run of this test's own."""
    server = CloudRun().start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Postgres]:
    """A PostgreSQL that all tests share, a database each."""
    yield from _started(Postgres, postgres.missing())


@pytest.fixture
def other_cluster() -> Iterator[Postgres]:
    """A PostgreSQL that one test may mistreat."""
    yield from _started(Postgres, postgres.missing())


@pytest.fixture
async def writer(db: None) -> AsyncIterator[Writer]:
    """A writer without the rest of a service."""
    async with running_writer() as started:
        yield started


@pytest.fixture
async def service(db: None) -> AsyncIterator[Service]:
    """A running service without its HTTP side."""
    async with running() as started:
        yield started


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A real server with all control loops."""
    from graphql_api.application import make_application

    async with serving(make_application()) as address:
        yield address


@pytest.fixture
async def admin(url: str) -> AsyncIterator[Api]:
    api = Api(url, await make_token(Role.ADMIN))
    yield api
    await api.http.aclose()


@pytest.fixture
async def sim(admin: Api) -> dict[str, Any]:
    """A simulated host that takes any job."""
    return await admin(CREATE_HOST, input=SIMULATED)


@pytest.fixture
async def simulated(url: str) -> Callable[..., ExecutorHost]:
    """Make simulated hosts behind the API's back."""
    from tests.factories import ExecutorHostFactory

    return sync_to_async(ExecutorHostFactory)
