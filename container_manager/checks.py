"""What `manage.py check` says about a project that uses the app."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured

from container_manager import configuration

ROUTER = "container_manager.database.Router"


def of_project(**_: Any) -> Sequence[CheckMessage]:
    """Errors and warnings about the settings that concern the service."""
    try:
        configuration.current()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="container_manager.E001")]
    found: list[CheckMessage] = []
    alias = configuration.alias()
    if alias != "default" and ROUTER not in settings.DATABASE_ROUTERS:
        hint = f"Add {ROUTER!r} to DATABASE_ROUTERS."
        found.append(
            Error(f"The tables of container_manager are not kept in {alias!r}.", hint, id="container_manager.E002")
        )
    if alias != "default":
        found.append(
            checks.Warning(
                f"A transaction of the default database is none of {alias!r}, in which submit() writes.",
                f"Submit in transaction.atomic(using={alias!r}), and silence this.",
                id="container_manager.W002",
            )
        )
    ours = Path(__file__).parents[1] / "graphql_api"
    spec = find_spec("graphql_api")
    if spec is None or str(ours) not in (spec.submodule_search_locations or []):
        found.append(Error("Another package graphql_api hides that of container_manager.", id="container_manager.E004"))
    if not settings.USE_TZ:
        found.append(Error("container_manager needs USE_TZ = True.", id="container_manager.E003"))
    database = settings.DATABASES[alias]
    if database["ENGINE"].endswith("sqlite3") and database.get("OPTIONS", {}).get("transaction_mode") != "IMMEDIATE":
        found.append(
            checks.Warning(
                f"With the OPTIONS of the database {alias!r}, transactions may fail because the database is locked.",
                "Set them to container_manager.environment.SQLITE_OPTIONS.",
                id="container_manager.W001",
            )
        )
    return found
