"""The service inside another Django project: the example of examples/django, and projects with other settings."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.client import CREATE_HOST, EVENTS, Api
from tests.eventually import eventually, eventually_sync
from tests.pages import blocks, page
from tests.postgres import Postgres
from tests.processes import ROOT

EXAMPLE = ROOT / "examples/django"
SIMULATED = {"name": "sim", "executorType": "SIMULATED", "config": {"accept": "any", "launch_ms": 0, "run_ms": 1}}


def environment(**variables: str) -> dict[str, str]:
    """That of a user of the project: none of our own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONTAINER_MANAGER", "DJANGO"))}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


class Project:
    """A Django project, of which the package is called shop."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder, self.variables = folder, environment(**variables)

    @classmethod
    def example(cls, folder: Path, url: str) -> "Project":
        """A copy of the example, with a database of its own."""
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.sqlite3*", "__pycache__"))
        return cls(folder, SHOP_DATABASE_URL=url or f"sqlite:///{folder}/shop.sqlite3")

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            env=self.variables, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def settings(self, text: str) -> None:
        """Add to the settings."""
        with (self.folder / "shop/settings.py").open("a") as file:
            file.write(f"\n{text}\n")

    @contextmanager
    def served(self) -> Iterator[str]:
        """`uvicorn shop.asgi:application`; its url."""
        with socket.create_server(("127.0.0.1", 0)) as listener, (self.folder / "err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "shop.asgi:application", "--fd", str(listener.fileno())],
                env=self.variables, cwd=self.folder, stderr=err, pass_fds=[listener.fileno()],
            )  # fmt: skip
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            eventually_sync(lambda: "Uvicorn running" in self.errors() or process.poll() is not None, 30)
            assert process.poll() is None, self.errors()
            yield url
        finally:
            process.terminate()
            process.wait(15)

    def errors(self) -> str:
        return (self.folder / "err").read_text()


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    cluster: Postgres | None = request.getfixturevalue("cluster") if request.param == "postgresql" else None
    return Project.example(tmp_path / "shop", cluster.database() if cluster else "")


@pytest.fixture
def own(tmp_path: Path) -> Project:
    """One with SQLite."""
    return Project.example(tmp_path / "shop", "")


def test_the_example_passes_its_own_tests(project: Project) -> None:
    assert project.manage("check", "--fail-level", "WARNING", "--database", "default").returncode == 0
    done = project.manage("test")
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr


async def test_the_example_serves_the_shop_and_the_service(project: Project) -> None:
    assert project.manage("migrate").returncode == 0
    token = project.manage("container_manager", "token", "create", "--name", "me", "--role", "admin").stdout.strip()
    with project.served() as url:
        api = Api(f"{url}/containers", token)
        assert (await api(CREATE_HOST, input=SIMULATED))["health"]["status"] == "HEALTHY"
        async with httpx.AsyncClient(base_url=url) as shop, api.subscribe(EVENTS, after="0") as events:
            order = (await shop.post("/orders/", data={"article": "tea"})).json()["order"]

            async def invoiced() -> bool:
                return (await shop.get(f"/orders/{order}/")).json()["invoice"] == "succeeded"

            await eventually(invoiced, 20)
            kinds = [(await anext(events))["kind"] for _ in range(3)]
            assert kinds == ["HOST_CREATED", "JOB_SUBMITTED", "JOB_ROUTED"]
            assert (await shop.get("/containers/livez")).text == "ok\n"
            assert (await shop.get("/containers/readyz")).json()["ready"]
            page = await shop.get("/containers/", headers={"Accept": "text/html"})
            assert (page.status_code, 'href="/containers/assets/' in page.text) == (200, True)
            assert (await shop.get("/containersish")).status_code == 404
            refused = await shop.get("/containers/", headers={"Host": "evil.example"})
            assert (refused.status_code, "add its name to ALLOWED_HOSTS" in refused.text) == (400, True)
        await api.http.aclose()
    assert "Traceback" not in project.errors()


def test_a_service_in_front_of_tables_that_are_not_there_says_what_to_do(own: Project) -> None:
    with pytest.raises(AssertionError, match=r"run `manage\.py migrate`"), own.served():
        pass


def test_tables_may_have_a_database_of_their_own(own: Project) -> None:
    own.settings("DATABASES['jobs'] = {**DATABASES['default'], 'NAME': FOLDER / 'jobs.sqlite3', 'TEST': {}}")
    (shown,) = [block for block in blocks("django.md", "python") if "DATABASE_ROUTERS" in block]
    alias, router = shown.splitlines()
    own.settings(alias)
    refused = own.manage("check", "--database", "default")
    assert (refused.returncode, "Add 'container_manager.database.Router' to DATABASE_ROUTERS" in refused.stderr) == (
        1,
        True,
    )
    own.settings(router)
    for alias in ("default", "jobs"):
        done = own.manage("migrate", "--database", alias)
        assert done.returncode == 0, done.stderr
    token = own.manage("container_manager", "token", "create", "--name", "me", "--role", "admin").stdout.strip()
    with own.served() as url:
        headers = {"Authorization": f"Bearer {token}"}
        post = {"query": CREATE_HOST, "variables": {"input": SIMULATED}}
        answer = httpx.post(f"{url}/containers/graphql", json=post, headers=headers).json()
        assert answer["data"]["createHost"]["health"]["status"] == "HEALTHY", answer
        order = httpx.post(f"{url}/orders/", data={"article": "tea"}).json()["order"]
        eventually_sync(lambda: httpx.get(f"{url}/orders/{order}/").json()["invoice"] == "succeeded", 20)
    assert _tables(own.folder / "jobs.sqlite3") >= {"container_manager_containerjob"}
    assert not any(name.startswith("container_manager") for name in _tables(own.folder / "shop.sqlite3"))


ORDERS = """
from django.db import models

class Order(models.Model):
    invoice = models.CharField(max_length=20)
"""
APPS = """
from django.apps import AppConfig

class Orders(AppConfig):
    name = "orders"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self):
        from orders import receivers
"""


def test_what_the_page_about_django_shows_works(tmp_path: Path) -> None:
    own = Project(tmp_path)
    start = [sys.executable, "-m", "django", "startproject", "shop", "."]
    subprocess.run(start, cwd=tmp_path, env=own.variables, check=True, timeout=60)
    app = tmp_path / "orders"
    app.mkdir()
    files = {"models.py": ORDERS, "apps.py": APPS, "__init__.py": ""}
    files["receivers.py"] = "from orders.models import Order\n"
    own.settings("INSTALLED_APPS += ['orders', 'django_tasks']")
    for _, title, text in page("django.md"):
        match title.partition(",")[0]:
            case "settings.py" if "DATABASE_ROUTERS" not in text:
                own.settings(text)
            case "asgi.py":
                setting = "import os\nos.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n"
                (tmp_path / "shop/asgi.py").write_text(setting + text)
            case "views.py":
                files["views.py"] = f"def buy(order):\n{textwrap.indent(text, '    ')}"
            case "receivers.py":
                files["receivers.py"] += text
    for name, text in files.items():
        (app / name).write_text(text)
    for command in (["makemigrations", "orders"], ["migrate"], ["check"]):
        done = own.manage(*command)
        assert done.returncode == 0, done.stderr
    token = own.manage("container_manager", "token", "create", "--name", "me", "--role", "admin").stdout.strip()
    with own.served() as url:
        post = {"query": CREATE_HOST, "variables": {"input": SIMULATED}}
        answer = httpx.post(f"{url}/containers/graphql", json=post, headers={"Authorization": f"Bearer {token}"}).json()
        assert answer["data"]["createHost"]["health"]["status"] == "HEALTHY", answer
        bought = own.manage("shell", "-c", "from orders import models, views; views.buy(models.Order())")
        assert bought.returncode == 0, bought.stderr

        def invoice() -> list[tuple[str]]:
            with closing(sqlite3.connect(tmp_path / "db.sqlite3")) as connection:
                return connection.execute("SELECT invoice FROM orders_order").fetchall()

        eventually_sync(lambda: invoice() == [("succeeded",)], 20)


def _tables(path: Path) -> set[str]:
    with sqlite3.connect(path) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("CONTAINER_MANAGER = {'LEASE': 3}", "CONTAINER_MANAGER['LEASE'] is not a setting of container-manager"),
        ("CONTAINER_MANAGER = {'LEASE_SECONDS': 1}", "LEASE_SECONDS: Input should be greater than or equal to 3"),
        ("CONTAINER_MANAGER = {'DATABASE_URL': 'x'}", "use the setting DATABASES"),
        ("CONTAINER_MANAGER = {'DATABASE': 'x'}", "there is no database 'x' in DATABASES"),
        ("CONTAINER_MANAGER = 3", "CONTAINER_MANAGER must be a dictionary"),
        ("USE_TZ = False", "container_manager needs USE_TZ = True"),
        ("DATABASES['default'].pop('OPTIONS')", "Set them to container_manager.environment.SQLITE_OPTIONS"),
        ("TASKS['default']['OPTIONS'] = {'imago': 'x'}", "OPTIONS has no 'imago'"),
    ],
)
def test_wrong_settings_are_named(own: Project, settings: str, message: str) -> None:
    own.settings(settings)
    done = own.manage("check", "--fail-level", "WARNING", "--database", "default")
    assert done.returncode == 1
    assert message in done.stderr


def test_the_demonstration_leaves_the_projects_database_alone(own: Project) -> None:
    own.manage("migrate")
    done = own.manage("container_manager", "demo", "--port", "0")
    assert (done.returncode, "demo has a database of its own" in done.stderr) == (1, True)


NO_LIFESPAN = """
from container_manager.embed import application as ours

async def application(scope, receive, send):
    assert scope["type"] != "lifespan"
    await ours()(scope, receive, send)
"""


def test_without_its_lifespan_the_application_says_so(own: Project) -> None:
    own.manage("migrate")
    path = own.folder / "shop/asgi.py"
    path.write_text(path.read_text() + NO_LIFESPAN)
    with own.served() as url:
        answer = httpx.post(f"{url}/graphql", json={"query": "{ viewer { name } }"})
    assert answer.status_code == 503
    assert "use container_manager.embed.mount" in answer.json()["errors"][0]["message"]
