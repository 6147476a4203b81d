"""Django settings. This module and `environment` are the only readers of the process's environment."""

import os
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from container_manager.environment import POSTGRESQL_OPTIONS, SQLITE_OPTIONS, ConfigurationError, read


class _NoGeometry(MetaPathFinder):
    """Tells at once that there is no GDAL.

    strawberry_django asks for Django's geometry fields, which start two dozen programs to look for the library.
    """

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "django.contrib.gis":
            raise ImproperlyConfigured("Geometry fields are not used.")


sys.meta_path.insert(0, _NoGeometry())

CONTAINER_MANAGER = read(os.environ)
# gRPC would write lines of its own to stderr, between our structured log lines.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# OpenTelemetry reads its own variables; naming a collector also turns tracing on.
os.environ.setdefault("OTEL_SERVICE_NAME", "container-manager")

SECRET_KEY = CONTAINER_MANAGER.secret_keys()[0]
DEBUG = False
ALLOWED_HOSTS = list(CONTAINER_MANAGER.allowed_hosts)
# The pages of the admin. Of these, only contenttypes has a table here.
INSTALLED_APPS = [
    "container_manager",
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
]
CSRF_COOKIE_HTTPONLY = True
# Of messages as well, which have the settings of a session's cookie.
CSRF_COOKIE_SAMESITE = SESSION_COOKIE_SAMESITE = "Strict"
MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware", "django.contrib.messages.middleware.MessageMiddleware"]
# Its users are known by their tokens, so it needs no sessions.
SILENCED_SYSTEM_CHECKS = ["admin.E408", "admin.E410"]
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
ROOT_URLCONF = "container_manager.admin_pages"
STATIC_URL = "admin/static/"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).with_name("admin_templates")],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False


def _database() -> dict[str, Any]:
    url = CONTAINER_MANAGER.effective_database_url
    try:
        database: dict[str, Any] = dict(dj_database_url.parse(url, conn_max_age=None, conn_health_checks=True))
    except ValueError as error:
        raise ConfigurationError("CONTAINER_MANAGER_DATABASE_URL: cannot be read as a URL.") from error
    if database["ENGINE"] == "django.db.backends.postgresql":
        database["OPTIONS"] = {**POSTGRESQL_OPTIONS, **database.get("OPTIONS", {})}
    elif database["ENGINE"] == "django.db.backends.sqlite3":
        database["OPTIONS"] = dict(SQLITE_OPTIONS)
        # Tests read and write from several threads, which an in-memory database does not allow.
        database["TEST"] = {"NAME": str(CONTAINER_MANAGER.home / "test.sqlite3")}
    return database


DATABASES = {"default": _database()}

_log_format = CONTAINER_MANAGER.log_format or ("text" if sys.stderr.isatty() else "json")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"structured": {"()": "container_manager.observability.logs.formatter", "style": _log_format}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
    "root": {"handlers": ["stderr"], "level": CONTAINER_MANAGER.log_level.upper()},
    "loggers": {
        "strawberry.execution": {"level": "CRITICAL"},
        "django.request": {"level": "ERROR"},
    },
}
