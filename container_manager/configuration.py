"""The configuration of this process: `container_manager.settings`, or that of a Django project that uses the app.

A project may have a dictionary `CONTAINER_MANAGER` in its settings, with the names of `Environment`'s fields in capital
letters and `DATABASE`, the alias of the database for our tables. What it does not name is read from the environment.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.encoding import force_bytes

from container_manager.environment import ConfigurationError, Environment, is_given, read

DATABASE = "DATABASE"
OF_DJANGO = {
    "DATABASE_URL": "DATABASES",
    "ALLOWED_HOSTS": "ALLOWED_HOSTS",
    "LOG_FORMAT": "LOGGING",
    "LOG_LEVEL": "LOGGING",
}
"""Settings that a project has already, by the name that they have without one."""

LOOPBACK = [".localhost", "127.0.0.1", "[::1]"]


@cache
def current() -> Environment:
    """The configuration of the service.

    Raises:
        ImproperlyConfigured: the project's settings have an unknown name or a bad value.
    """
    given = getattr(settings, "CONTAINER_MANAGER", None)
    return given if isinstance(given, Environment) else _of_project()


def is_embedded() -> bool:
    """Whether the app is part of another project."""
    return not isinstance(getattr(settings, "CONTAINER_MANAGER", None), Environment)


def alias() -> str:
    """The alias of the database that has our tables."""
    return str(_given().get(DATABASE, "default")) if is_embedded() else "default"


def allowed_hosts() -> list[str]:
    """The host names that requests may name: those of Django, which allows loopback alone while it debugs."""
    hosts: list[str] = settings.ALLOWED_HOSTS
    return hosts or (LOOPBACK if settings.DEBUG else [])


def _given() -> Mapping[str, Any]:
    given = getattr(settings, "CONTAINER_MANAGER", None) or {}
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured("CONTAINER_MANAGER must be a dictionary.")
    return given


def _of_project() -> Environment:
    given = {name: value for name, value in _given().items() if name != DATABASE}
    for name in given:
        if name in OF_DJANGO:
            raise ImproperlyConfigured(f"CONTAINER_MANAGER[{name!r}]: use the setting {OF_DJANGO[name]}.")
        if name != name.upper() or name.lower() not in Environment.model_fields:
            raise ImproperlyConfigured(f"CONTAINER_MANAGER[{name!r}] is not a setting of container-manager.")
    if (name := alias()) not in settings.DATABASES:
        raise ImproperlyConfigured(f"CONTAINER_MANAGER[{DATABASE!r}]: there is no database {name!r} in DATABASES.")
    is_postgresql = settings.DATABASES[name]["ENGINE"].endswith((".postgresql", ".postgis"))
    fixed = {
        "DATABASE_URL": "postgresql://" if is_postgresql else "sqlite:///",
    }
    if not given.get("SECRET_KEY") and not is_given("SECRET_KEY"):
        fixed["SECRET_KEY"] = ",".join(map(_derived, _django_keys()))
    try:
        return read(given={**given, **fixed})
    except ConfigurationError as error:
        raise ImproperlyConfigured(str(error)) from error


_forget_current = current.cache_clear


@receiver(setting_changed)
def _forget(**_: Any) -> None:
    """Tests of a project change its settings."""
    _forget_current()


def _django_keys() -> list[str | bytes]:
    return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]


def _derived(key: str | bytes) -> str:
    """A key of our own from one of Django's, which may have commas or be short."""
    return hashlib.sha256(b"container-manager " + force_bytes(key)).hexdigest()
