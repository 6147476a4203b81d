"""The Django application."""

from typing import Any

from django.apps import AppConfig
from django.core.checks import Tags, register
from django.db.backends.signals import connection_created

from container_manager import checks, configuration


class ContainerManagerConfig(AppConfig):
    """Hosts, jobs, decisions and events."""

    name = "container_manager"
    verbose_name = "container-manager"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        connection_created.connect(_drop_notifications)
        if configuration.is_embedded():
            register(checks.of_project, Tags.database)


def _drop_notifications(connection: Any, **_: Any) -> None:
    # Behind a pool in transaction mode a connection may receive notifications for which another client has issued
    # LISTEN. Without a handler psycopg would keep all of them in memory.
    if connection.vendor == "postgresql":
        connection.connection.add_notify_handler(lambda _: None)
