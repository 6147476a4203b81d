"""The CONTAINER_MANAGER_* variables as one typed, frozen value, validated before anything starts."""

import difflib
import ipaddress
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

PREFIX = "CONTAINER_MANAGER_"

# Read by the command-line client, which does not load the service.
CLIENT_VARIABLES = frozenset({"URL", "TOKEN", "CONTEXT"})

# A database host that vanishes without closing its connections is noticed within seconds, not TCP's own minutes.
POSTGRESQL_OPTIONS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
SQLITE_OPTIONS: dict[str, Any] = {
    # A writer takes its lock at BEGIN. With deferred transactions, two readers that both
    # start to write fail with "database is locked" whatever the timeout.
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536",
}
"""OPTIONS of Django's DATABASES; a project that gives its own database to the service needs those of SQLite."""

MINIMUM_KEY_LENGTH = 32
ROLES = ("viewer", "operator", "admin")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class ConfigurationError(Exception):
    """The service cannot start with this configuration; the message is one sentence that says what to change."""


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _are_networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ipaddress.ip_network(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is not an address or a network") from error
    return values


def _give_roles(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        role, _, group = value.partition("=")
        if role not in ROLES or not group:
            raise ValueError(f"{value!r} must be one of {', '.join(ROLES)}, then = and a value of the claim")
    return values


def _in_small_letters(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Proxies = Annotated[Names, AfterValidator(_are_networks)]
Roles = Annotated[Names, AfterValidator(_give_roles)]


class Environment(BaseModel):
    """Every setting of the service; a field `x` is read from CONTAINER_MANAGER_X."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    home: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("container-manager")),
        description="where the embedded database and the secret key live",
    )
    database_url: str = Field("", description="`sqlite:///path` or `postgresql://…`; SQLite in HOME when empty")
    listen_url: str = Field(
        "", description="a direct connection to the same PostgreSQL, when DATABASE_URL goes through PgBouncer"
    )
    secret_key: str = Field(
        "", description="at least 32 characters; several, comma-separated, rotate: the first encrypts"
    )
    node: str = Field(default_factory=socket.gethostname, min_length=1, description="the machine this process is on")
    allowed_hosts: Names = Field(("localhost", "127.0.0.1", "[::1]"), description="host names that requests may name")
    allowed_origins: Names = Field((), description="other origins whose pages may call the API")
    trusted_proxies: Proxies = Field(
        (), description="addresses or networks of proxies whose `X-Forwarded-For` names the client"
    )
    max_connections: int = Field(4096, ge=1, description="connections of one process; more are refused with 503")
    introspection: bool = Field(True, description="whether clients may read the schema")
    trusted_documents: str = Field(
        "", description="JSON file of GraphQL documents by id; clients can run these and no others"
    )
    max_subscriptions: int = Field(2000, ge=1, description="subscriptions that a token may have on one process")
    oidc_issuer: str = Field("", description="URL of an OpenID Connect issuer whose tokens are accepted, too")
    oidc_audience: str = Field("", description="the audience that the issuer's tokens must name")
    oidc_roles: Roles = Field(
        (), description="which values of the roles claim give which role: `admin=ops,operator=dev,viewer=staff`"
    )
    oidc_roles_claim: str = Field("groups", min_length=1, description="the claim with a user's groups or roles")
    oidc_name_claim: str = Field("sub", min_length=1, description="the claim with a user's name in the audit log")
    log_format: Literal["text", "json", ""] = Field("", description="`text` on a terminal, else `json`")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_in_small_letters)] = Field(
        "info", description="the lowest level that is logged"
    )

    default_memory_mb: int = Field(256, ge=6, le=2**31 - 1, description="MiB for a job that names no memory limit")
    default_cpu: float = Field(0.5, ge=0.01, le=10_000, description="cores for a job that names no CPU limit")
    default_timeout_seconds: int = Field(
        3600, ge=1, le=2**31 - 1, description="seconds a job may run when it names no timeout"
    )
    default_strategy: Literal["weighted", "balanced", "packed"] = Field(
        "weighted", description="how a host is chosen for a job that names no strategy"
    )
    reserve_after_seconds: float = Field(
        300, gt=0, le=31_536_000, description="seconds after which the job that has waited longest gets a reservation"
    )
    evaluation_days: float = Field(
        90, gt=0, le=36_500, description="days for which the checks of all hosts are kept with a decision"
    )
    event_days: float = Field(90, gt=0, le=36_500, description="days for which events are kept")
    job_days: float = Field(
        365, gt=0, le=36_500, description="days for which a job is kept after its end, with its attempts and decisions"
    )
    output_days: float = Field(90, gt=0, le=36_500, description="days for which a job's output is kept after its end")
    audit_days: float = Field(365, gt=0, le=36_500, description="days for which the audit log is kept")
    probe_interval_seconds: float = Field(
        10, gt=0, le=86_400, description="seconds between two health probes of a host"
    )
    probe_timeout_seconds: float = Field(3, gt=0, le=86_400, description="seconds after which a probe has failed")
    lease_seconds: float = Field(
        12, ge=3, le=86_400, description="seconds after which another worker may take over a job"
    )
    launch_timeout_seconds: float = Field(
        60, gt=0, le=86_400, description="seconds for one create or start call to an engine"
    )
    pull_timeout_seconds: float = Field(600, gt=0, le=86_400, description="seconds for pulling an image")
    infrastructure_retries: int = Field(
        5, ge=0, le=1000, description="how often a job is retried when hosts that answer fail it"
    )
    orphan_grace_seconds: float = Field(
        60, ge=1, le=86_400, description="seconds after which a container that no job needs is removed"
    )
    stop_grace_seconds: float = Field(10, ge=0, le=86_400, description="seconds between TERM and KILL")
    log_limit_bytes: int = Field(
        1_048_576, ge=1024, description="bytes of output kept per attempt; the middle is dropped"
    )
    drain_seconds: float = Field(
        0,
        ge=0,
        le=3600,
        description="seconds for which a stopping process still accepts requests while it reports that it is not ready",
    )
    max_body_bytes: int = Field(16_777_216, ge=1024, description="bytes of one HTTP request's body")
    max_document_bytes: int = Field(65_536, ge=1024, description="bytes of one GraphQL document")

    @model_validator(mode="after")
    def _keys_are_long_enough(self) -> "Environment":
        if self.is_postgresql and not self.secret_key:
            raise ValueError("SECRET_KEY must be given with PostgreSQL, the same for all processes")
        if self.listen_url and not self.is_postgresql:
            raise ValueError("LISTEN_URL needs a DATABASE_URL that is PostgreSQL's")
        if any(len(key) < MINIMUM_KEY_LENGTH for key in _keys(self.secret_key)):
            raise ValueError(f"SECRET_KEY must have at least {MINIMUM_KEY_LENGTH} characters")
        return self

    @model_validator(mode="after")
    def _issuer_is_complete(self) -> "Environment":
        if not self.oidc_issuer:
            return self
        url = urlsplit(self.oidc_issuer)
        if url.scheme != "https" and not (url.scheme == "http" and url.hostname in LOOPBACK):
            raise ValueError("OIDC_ISSUER must start with https://")
        if not self.oidc_audience or not self.oidc_roles:
            raise ValueError("OIDC_ISSUER needs OIDC_AUDIENCE and OIDC_ROLES")
        return self

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'container-manager.sqlite3'}"

    @property
    def is_postgresql(self) -> bool:
        return self.database_url.startswith(("postgres://", "postgresql://"))

    def secret_keys(self) -> tuple[str, ...]:
        """The secret keys; the first one encrypts. Without any in the environment, one is created in HOME and kept."""
        return _keys(self.secret_key) or (_kept_key(self.home / "secret_key"),)


def _keys(value: str) -> tuple[str, ...]:
    return tuple(key.strip() for key in value.split(",") if key.strip())


def _kept_key(path: Path) -> str:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            # Linked into place as a whole, so that a process that starts at the same time never reads half a key.
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_text(secrets.token_urlsafe(48))
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        key = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"{PREFIX}HOME: the secret key cannot be kept in {path}: {error.strerror}.") from error
    if len(key) < MINIMUM_KEY_LENGTH:
        raise ConfigurationError(f"The secret key in {path} must have at least {MINIMUM_KEY_LENGTH} characters.")
    return key


def runtime_folder() -> str:
    """The user's folder for sockets; "" when there is none."""
    return os.environ.get("XDG_RUNTIME_DIR", "")


def sends_traces() -> bool:
    """Whether a collector of traces is named, by OpenTelemetry's own variables."""
    return any(os.environ.get(f"OTEL_EXPORTER_OTLP_{endpoint}") for endpoint in ("ENDPOINT", "TRACES_ENDPOINT"))


def shares_metrics() -> bool:
    """Whether worker processes share their metrics in a folder, as `serve --workers` lets them."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


def is_given(name: str) -> bool:
    """Whether the environment has this setting."""
    return bool(os.environ.get(PREFIX + name))


def read(environ: Mapping[str, str] | None = None, given: Mapping[str, Any] | None = None) -> Environment:
    """Read the service's variables. Empty values count as not given.

    Args:
        environ: the process's environment when it is not given.
        given: settings that are fixed already, by their names in capital letters.

    Raises:
        ConfigurationError: a variable is unknown or has an invalid value; the message names it.
    """
    environ = os.environ if environ is None else environ
    names = {name.removeprefix(PREFIX): value for name, value in environ.items() if name.startswith(PREFIX) and value}
    for name in names:
        if name not in CLIENT_VARIABLES and name.lower() not in Environment.model_fields:
            close = difflib.get_close_matches(name.lower(), Environment.model_fields, 1)
            meant = f"did you mean {PREFIX}{close[0].upper()}?" if close else "see the table in the README."
            raise ConfigurationError(f"{PREFIX}{name} is not a setting of container-manager; {meant}")
    values: dict[str, Any] = {name.lower(): value for name, value in names.items() if name not in CLIENT_VARIABLES}
    values |= {name.lower(): value for name, value in (given or {}).items()}
    try:
        environment = Environment.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = PREFIX + str(first["loc"][0]).upper() + ": " if first["loc"] else PREFIX
        raise ConfigurationError(f"{where}{first['msg'].removeprefix('Value error, ')}.") from error
    if not environment.effective_database_url.startswith(("sqlite:///", "postgres://", "postgresql://")):
        raise ConfigurationError(f"{PREFIX}DATABASE_URL: must start with sqlite:/// or postgresql://.")
    return environment
