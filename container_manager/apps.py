"""The Django application."""

from typing import Any

from django.apps import AppConfig
from django.db.backends.signals import connection_created


class ContainerManagerConfig(AppConfig):
    """Hosts, jobs, decisions and events."""

    name = "container_manager"
    verbose_name = "container-manager"

    def ready(self) -> None:
        connection_created.connect(_drop_notifications)


def _drop_notifications(connection: Any, **_: Any) -> None:
    # Behind a pool in transaction mode a connection may receive notifications for which another client has issued
    # LISTEN. Without a handler psycopg would keep all of them in memory.
    if connection.vendor == "postgresql":
        connection.connection.add_notify_handler(lambda _: None)
