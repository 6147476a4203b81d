"""Django settings, and the only place that reads the environment."""

import os
import sys
from typing import Any

import dj_database_url

from container_manager.environment import ConfigurationError, read

CONTAINER_MANAGER = read(os.environ)
# Google's gRPC writes to stderr by itself, where our log goes.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# OpenTelemetry reads its own variables; the one that says where to send traces also turns them on.
os.environ.setdefault("OTEL_SERVICE_NAME", "container-manager")
SENDS_TRACES = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{endpoint}") for endpoint in ("ENDPOINT", "TRACES_ENDPOINT"))
# Set by whoever starts several processes on one port: where each leaves what it has counted.
SHARES_METRICS = "PROMETHEUS_MULTIPROC_DIR" in os.environ

SECRET_KEY = CONTAINER_MANAGER.secret_keys()[0]
DEBUG = False
ALLOWED_HOSTS = list(CONTAINER_MANAGER.allowed_hosts)
INSTALLED_APPS = ["container_manager"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "container_manager.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False


# A host that is gone without a word is found out within seconds, and not by TCP's own patience of minutes.
POSTGRESQL_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def _database() -> dict[str, Any]:
    url = CONTAINER_MANAGER.effective_database_url
    try:
        database: dict[str, Any] = dict(dj_database_url.parse(url, conn_max_age=None, conn_health_checks=True))
    except ValueError as error:
        raise ConfigurationError("CONTAINER_MANAGER_DATABASE_URL: cannot be read as a URL.") from error
    if database["ENGINE"] == "django.db.backends.postgresql":
        database["OPTIONS"] = {**POSTGRESQL_OPTIONS, **database.get("OPTIONS", {})}
    elif database["ENGINE"] == "django.db.backends.sqlite3":
        database["OPTIONS"] = {
            # A writer takes its lock at BEGIN: with a deferred one, two readers that both want
            # to write meet "database is locked" whatever the timeout.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536",
        }
        # Tests read and write from several threads; an in-memory database has one connection's view.
        database["TEST"] = {"NAME": str(CONTAINER_MANAGER.home / "test.sqlite3")}
    return database


DATABASES = {"default": _database()}

_log_format = CONTAINER_MANAGER.log_format or ("text" if sys.stderr.isatty() else "json")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"},
        "json": {"()": "container_manager.logs.JsonFormatter"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": _log_format}},
    "root": {"handlers": ["stderr"], "level": CONTAINER_MANAGER.log_level.upper()},
    "loggers": {
        "strawberry.execution": {"level": "CRITICAL"},
        "django.request": {"level": "ERROR"},
    },
}
