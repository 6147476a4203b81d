"""The settings of a host (`ExecutorHost.config`), by executor type. Checking them imports no SDK.

To add a setting, add a field to the config class of its executor type.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from container_manager.domain import capabilities, cloudrun_limits
from container_manager.domain.kinds import PACKAGED
from container_manager.executors.exceptions import ExecutorHostError
from container_manager.executors.secrets import Hidden

if TYPE_CHECKING:
    from container_manager.executors.base import ContainerExecutor

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
LONGEST_NODE, LONGEST_URL = 255, 500
PLAIN_PORT, TLS_PORT = 2375, 2376
"""The ports of engines, without and with TLS, that an address need not name."""

OTHER_SCHEMES = {
    "ssh": "forward the engine's socket, for example with ssh -L /run/engine.sock:/var/run/docker.sock HOST",
    "npipe": "engines on Windows are reached over tcp://",
    "http": "write tcp:// for an engine without TLS",
    "fd": "it is an address that an engine listens on; use the path of its socket",
}


class Settings(BaseModel):
    """Rejects unknown keys, so that a typo does not silently become a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def is_network(network: str) -> str:
    """Return the name of a network.

    Raises:
        ValueError: it is not the name of a network, or the network of the host or of another container.
    """
    if network == "host" or not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", network):
        raise ValueError("must be the name of a network, and not that of the host or of another container")
    return network


NetworkName = Annotated[str, AfterValidator(is_network)]


class TLS(Settings):
    """Certificates as PEM text, or paths of PEM files on the server."""

    ca: str = ""
    cert: str = ""
    key: Hidden = ""
    verify: bool = True


class RegistryLogin(Settings):
    """Credentials for one image registry."""

    username: str
    password: Hidden


def is_container_path(path: str) -> str:
    """Return the path.

    Raises:
        ValueError: nothing may be mounted there.
    """
    parts = posixpath.normpath(path.replace("//", "/")).split("/")
    if parts[1:3] == ["dev", "shm"]:
        raise ValueError("must not be /dev/shm; its size is the job's shmSizeMb")
    if (
        not path.startswith("/")
        or not path.strip("/.")
        or ".." in path.split("/")
        or parts[1] in {"proc", "sys", "dev"}
    ):
        raise ValueError("must be an absolute path in the container without .., not / itself, /proc, /sys or /dev")
    return path


def _is_folder(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must be an absolute path on the host")
    return path


class Allowed(Settings):
    """What a job may choose itself. `networks`: besides the host's own network."""

    user: bool = True
    networks: list[NetworkName] = []


class Mount(Settings):
    """A folder of the host that is mounted into every container."""

    source: Annotated[str, AfterValidator(_is_folder)]
    read_only: bool = True


def _as_address(url: str, *, has_tls: bool) -> str:
    """An engine's address as Docker's own tools take it, in the form of a URL."""
    url = url.strip()
    if url.startswith("/"):
        return f"unix://{url}"
    if match := re.fullmatch(r"unix:/?(/[^/].*)", url):
        return f"unix://{match[1]}"
    scheme, colon, rest = url.partition("://")
    if not colon:
        scheme, rest = "tcp", url
    if scheme == "tcp" and _HOST.fullmatch(rest.rstrip("/")) and not re.search(r":\d+/?$", rest):
        rest = f"{rest.rstrip('/')}:{TLS_PORT if has_tls else PLAIN_PORT}"
    return f"{scheme}://{rest}"


def _as_registry(name: str) -> str:
    """The name of a registry as an image reference has it, from what Docker's own config file may have.

    Raises:
        ValueError: it is not the name of a registry.
    """
    host = re.sub(r"^https?://", "", name.strip()).split("/")[0]
    if not _HOST.fullmatch(host):
        raise ValueError(f"{name!r} is not the name of a registry, like registry.example.org:5000 or docker.io")
    return "docker.io" if host in {"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"} else host


CAPABILITIES = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "IPC_LOCK", "KILL", "MKNOD", "NET_ADMIN"),
        *("NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "SYS_NICE"),
        "SYS_PTRACE",
    }
)
"""The capabilities of Linux that a host may give its containers: Docker's defaults, and some that programs ask for."""


def _is_capability(name: str) -> str:
    known = name.upper().removeprefix("CAP_")
    if known not in CAPABILITIES:
        raise ValueError(f"{name!r} is not one of {', '.join(sorted(CAPABILITIES))}")
    return known


class DockerConfig(Settings):
    """A Docker or Podman engine."""

    node: Annotated[str, StringConstraints(max_length=LONGEST_NODE, pattern=r"^[^\x00]*$")] = ""
    url: Annotated[str, StringConstraints(max_length=LONGEST_URL)] = DEFAULT_SOCKET
    tls: TLS | None = None
    network: NetworkName = "none"
    allow: Allowed = Allowed()
    mounts: dict[Annotated[str, AfterValidator(is_container_path)], Mount] = {}
    pull: Literal["if-not-present", "always", "never"] = "if-not-present"
    registry_auth: dict[str, RegistryLogin] = {}
    registries: list[str] | None = None
    max_launches: int = Field(5, ge=1, le=100)
    max_pulls: int = Field(10, ge=1, le=100)
    max_processes: int = Field(512, ge=1, le=4_194_304)
    capabilities: list[Annotated[str, AfterValidator(_is_capability)]] = []

    @model_validator(mode="before")
    @classmethod
    def _has_its_address_in_form(cls, config: Any) -> Any:
        if isinstance(config, Mapping) and isinstance(url := config.get("url"), str):
            return {**config, "url": _as_address(url, has_tls=config.get("tls") is not None)}
        return config

    @field_validator("registries")
    @classmethod
    def _are_names_of_registries(cls, names: list[str] | None) -> list[str] | None:
        return None if names is None else [_as_registry(name) for name in names]

    @field_validator("registry_auth")
    @classmethod
    def _names_registries_as_images_do(cls, logins: dict[str, RegistryLogin]) -> dict[str, RegistryLogin]:
        named = {_as_registry(name): login for name, login in logins.items()}
        if len(named) < len(logins):
            raise ValueError("names a registry twice")
        return named

    @field_validator("url")
    @classmethod
    def _is_an_engine_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not carry credentials; an engine is protected by tls")
        local = parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc
        if parts.scheme in OTHER_SCHEMES:
            raise ValueError(f"must not be {parts.scheme}://: {OTHER_SCHEMES[parts.scheme]}")
        remote = parts.scheme in {"tcp", "https"} and parts.path in {"", "/"} and _HOST.fullmatch(parts.netloc)
        # `port` raises ValueError when it is not a number.
        if not (local or (remote and parts.port != 0)) or parts.query or parts.fragment or not url.isprintable():
            raise ValueError("must be unix:///path/of.sock, tcp://HOST:PORT or https://HOST:PORT")
        return url


_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9]([a-zA-Z0-9._-]{0,252}))(:\d{1,5})?")
Milliseconds = Annotated[int, Field(ge=0, le=10_000_000_000)]


class SimulatedConfig(Settings):
    """The simulator: it runs nothing and behaves as configured; see the README."""

    accept: Literal["preferred", "any"] = "preferred"
    launch_ms: Milliseconds = 20
    run_ms: Milliseconds = 1000
    exit_code: int = Field(0, ge=0, le=255)
    fail_launch: float = Field(0.0, ge=0, le=1, strict=False)
    health_ms: Milliseconds = 1
    healthy: bool = True
    seed: int = Field(0, ge=0, le=2**53)


class Vpc(Settings):
    """The route of a Cloud Run job's traffic: through `connector`, or directly into `network` and `subnetwork`."""

    connector: str = ""
    network: str = ""
    subnetwork: str = ""
    tags: list[str] = []
    egress: Literal["private-ranges-only", "all-traffic"] = "private-ranges-only"

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> "Vpc":
        if bool(self.connector) == bool(self.network or self.subnetwork):
            raise ValueError("needs either a connector, or a network or subnetwork")
        if self.connector and self.tags:
            raise ValueError("tags go with a network or subnetwork, and not with a connector")
        return self


class CloudRunLimits(Settings):
    """Limits that are higher in some regions."""

    timeout_seconds: Literal[86_400, 604_800] = 86_400


def _is_endpoint(endpoint: str) -> str:
    if (endpoint and not (match := _HOST.fullmatch(endpoint))) or (endpoint and match and match[3] == ":0"):
        raise ValueError("must be HOST or HOST:PORT, without a scheme or a path")
    return endpoint


Endpoint = Annotated[str, AfterValidator(_is_endpoint)]


class CloudRunConfig(Settings):
    """A region of Google Cloud Run in one project. An empty endpoint is Google's own."""

    project: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.:-]*[a-z0-9])?$")]
    region: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$")]
    endpoint: Endpoint = ""
    logging_endpoint: Endpoint = ""
    plaintext: bool = False
    credentials: Annotated[str, Field(min_length=1)] = "adc"
    service_account: Annotated[str, Field(pattern=r"^([^@\s]+@[^@\s]+)?$")] = ""
    vpc: Vpc | None = None
    limits: CloudRunLimits = CloudRunLimits()
    poll_seconds: float = Field(5.0, ge=0.1, le=300, strict=False)
    max_launches: int = Field(10, ge=1, le=100)

    @model_validator(mode="after")
    def _is_plaintext_at_home_only(self) -> "CloudRunConfig":
        if not self.plaintext:
            if self.credentials == "anonymous":
                raise ValueError("credentials: anonymous needs plaintext; use adc or the path of a key file")
            return self
        for name in ("endpoint", "logging_endpoint"):
            host = urlsplit(f"//{getattr(self, name)}").hostname or ""
            if (name == "endpoint" or host) and host not in {"localhost", "127.0.0.1", "::1"}:
                raise ValueError(f"plaintext: {name} must be on this machine (localhost, 127.0.0.1 or [::1])")
        if self.credentials != "anonymous" and "credentials" in self.model_fields_set:
            raise ValueError(
                "credentials: plaintext allows only anonymous, because it would send other credentials unencrypted"
            )
        return self


class _Configs(dict[str, type[Settings]]):
    """Those of packages are loaded when they are asked for."""

    def __missing__(self, executor_type: str) -> type[Settings]:
        return packaged(executor_type).Config


CONFIGS: Mapping[str, type[Settings]] = _Configs(
    {"docker": DockerConfig, "cloudrun": CloudRunConfig, "simulated": SimulatedConfig}
)
"""The config class of each executor type.

Raises:
    ExecutorHostError: there is no executor of a type, or its package cannot be loaded.
"""


def packaged(executor_type: str) -> "type[ContainerExecutor]":
    """The executor class that an installed package brings for a type.

    Raises:
        ExecutorHostError: no package does, or it cannot be loaded.
    """
    if (point := PACKAGED.get(executor_type)) is None:
        raise ExecutorHostError(
            f"There is no executor of type {executor_type}; a package that brings one can be installed."
        )
    try:
        executor: type[ContainerExecutor] = point.load()
    except Exception as error:
        raise ExecutorHostError(f"The executor {point.value} cannot be loaded: {error!r}.") from error
    return executor


def takes_only_preferred(executor_type: str, config: Mapping[str, Any]) -> bool:
    """Whether the host takes only jobs that prefer its type."""
    return executor_type == "simulated" and config.get("accept", "preferred") == "preferred"


def grants_of(executor_type: str, config: Mapping[str, Any]) -> list[str]:
    """The codes of `domain.capabilities` that the host's settings grant."""
    if executor_type == "simulated":
        return [capabilities.EVERYTHING]
    if executor_type == "cloudrun":
        timeout = config.get("limits", {}).get("timeout_seconds", cloudrun_limits.TIMEOUT)
        # Both spellings: a process of an earlier version may route beside this one during an upgrade.
        return [cloudrun_limits.LONG_TIMEOUT, *capabilities.EARLIER] if timeout > cloudrun_limits.TIMEOUT else []
    if executor_type != "docker":
        is_known = executor_type in PACKAGED
        return [capabilities.EVERYTHING] if is_known and packaged(executor_type).offers_everything else []
    allow = Allowed.model_validate(config.get("allow", {}))
    networks = dict.fromkeys([config.get("network", "none"), *allow.networks])
    return [*([capabilities.USER] if allow.user else []), *map(capabilities.network, networks)]


def region_of(executor_type: str, config: Mapping[str, Any]) -> str:
    """The region in the host's settings; "" when they have none."""
    return str(config.get("region", "")) if executor_type == "cloudrun" else ""


def node_of(executor_type: str, config: Mapping[str, Any], default: str) -> str:
    """The node to which the host belongs; "" when processes of all nodes can reach it."""
    local = executor_type == "docker" and config.get("url", DEFAULT_SOCKET).startswith("unix://")
    return (config.get("node") or default) if local else ""


_KINDS = {"dict_type": "an object", "model_type": "an object", "list_type": "a list", "string_type": "a string"}


def message_of(entry: ErrorDetails) -> str:
    """What is wrong with a value, in words for readers who do not know Python."""
    kind = _KINDS.get(entry["type"])
    return f"must be {kind}" if kind else entry["msg"].removeprefix("Value error, ")


def config_errors(error: ValidationError, root: str = "config") -> Iterator[tuple[str, str]]:
    """Each error as (path of the key, sentence)."""
    for entry in error.errors():
        path = ".".join([root, *(str(part) for part in entry["loc"] if part != "[key]")])
        if entry["type"] == "extra_forbidden":
            yield path, f"{path}: is not a setting of this executor type."
            continue
        text = message_of(entry)
        if not entry["loc"]:
            # An error about several keys begins with the key to change.
            key, _, text = text.partition(": ")
            path = f"{path}.{key}"
        yield path, f"{path}: {text}."
