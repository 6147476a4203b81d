"""The database that has our tables: Django's `default`, or the one that a project's `CONTAINER_MANAGER` names."""

from functools import partial
from typing import Any

from django.db import connections, transaction
from django.db.models import Model
from django.utils.connection import ConnectionProxy

from container_manager import configuration

ALIAS = configuration.alias()
LABEL = "container_manager"

# As Django makes its own `django.db.connection`: the connection of the present thread.
connection: Any = ConnectionProxy(connections, ALIAS)
atomic = partial(transaction.atomic, using=ALIAS)
on_commit = partial(transaction.on_commit, using=ALIAS)


class Router:
    """For DATABASE_ROUTERS of a project that gives our tables a database of their own."""

    def db_for_read(self, model: type[Model], **_: Any) -> str | None:
        """Ours for our tables; Django decides about the others."""
        return ALIAS if model._meta.app_label == LABEL else None  # noqa: SLF001 - Django's own name

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:
        """Our tables only in our database; nothing is said about the others."""
        return db == ALIAS if app_label == LABEL else None
