"""The Django application."""

from django.apps import AppConfig


class ContainerManagerConfig(AppConfig):
    """Hosts, jobs, decisions and events."""

    name = "container_manager"
    verbose_name = "container-manager"
