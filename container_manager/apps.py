"""The Django application."""

from typing import Any

from django.apps import AppConfig
from django.db.backends.signals import connection_created


class ContainerManagerConfig(AppConfig):
    """Hosts, jobs, decisions and events."""

    name = "container_manager"
    verbose_name = "container-manager"

    def ready(self) -> None:
        connection_created.connect(_hear_nothing)


def _hear_nothing(connection: Any, **_: Any) -> None:
    # Through a pool in transaction mode it hears what another has asked to hear, and psycopg would keep all of that.
    if connection.vendor == "postgresql":
        connection.connection.add_notify_handler(lambda _: None)
