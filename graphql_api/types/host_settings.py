"""The settings of a host as types: what `config` contains, with the defaults of what it does not. Without secrets."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import strawberry
from pydantic import ValidationError

from container_manager.executors.configs import CloudRunConfig, DockerConfig, SimulatedConfig


@strawberry.type(description="A folder of the host that is mounted into every container.")
class Mount:
    path: str = strawberry.field(description="Where it is mounted in the container.")
    source: str = strawberry.field(description="Its absolute path on the host.")
    read_only: bool = strawberry.field(description="Whether containers cannot write into it.")


@strawberry.type(description="A login for a registry of images. Its password is never returned.")
class RegistryLogin:
    registry: str = strawberry.field(description="The name of the registry, as in references of images.")
    username: str = strawberry.field(description="The name of the user.")


@strawberry.type(description="The settings of a Docker or Podman engine.")
class DockerSettings:
    url: str = strawberry.field(description="The address of the engine: unix://, tcp:// or https://.")
    node: str = strawberry.field(
        description='The node that a unix:// engine belongs to; "": the one on which the host was created.'
    )
    has_tls: bool = strawberry.field(description="Whether the engine is reached with certificates.")
    verifies_certificate: bool = strawberry.field(description="Whether the certificate of the engine is verified.")
    network: str = strawberry.field(description="The network of containers whose job names none.")
    allows_user: bool = strawberry.field(description="Whether a job may choose its user.")
    allowed_networks: list[str] = strawberry.field(description="Networks that a job may choose.")
    mounts: list[Mount] = strawberry.field(description="Folders that every container gets.")
    pull: str = strawberry.field(description="When images are pulled: if-not-present, always or never.")
    registry_logins: list[RegistryLogin] = strawberry.field(description="The registries with a login.")
    registries: list[str] | None = strawberry.field(
        description="The registries from which images may come; null: from any."
    )
    max_launches: int = strawberry.field(description="Launches that go on at the same time.")
    max_pulls: int = strawberry.field(description="Pulls of images that go on at the same time.")
    max_processes: int = strawberry.field(description="Processes that a container may have.")
    capabilities: list[str] = strawberry.field(description="Capabilities of Linux that containers get.")


@strawberry.type(description="The route of the traffic of Cloud Run jobs.")
class VpcSettings:
    connector: str = strawberry.field(description='The connector; "" when a network is given.')
    network: str = strawberry.field(description='The network; "" when a connector is given.')
    subnetwork: str = strawberry.field(description='The subnetwork; "" for the one of the region.')
    tags: list[str] = strawberry.field(description="Network tags of the jobs.")
    egress: str = strawberry.field(description="What goes this way: private-ranges-only or all-traffic.")


@strawberry.type(description="The settings of a region of Google Cloud Run.")
class CloudRunSettings:
    project: str = strawberry.field(description="The id of the Google Cloud project.")
    region: str = strawberry.field(description="The region, such as europe-west1.")
    endpoint: str = strawberry.field(description='HOST:PORT of the API; "": Google\'s own.')
    service_account: str = strawberry.field(description='The service account of the jobs; "": the default one.')
    vpc: VpcSettings | None = strawberry.field(description="The route of the traffic; null: the public internet.")
    longest_timeout_seconds: int = strawberry.field(description="The longest time that a job may run there.")
    poll_seconds: float = strawberry.field(description="The time between two looks at an execution.")
    max_launches: int = strawberry.field(description="Launches that go on at the same time.")


@strawberry.type(description="The settings of the simulator, which runs nothing and behaves as configured.")
class SimulatedSettings:
    accept: str = strawberry.field(
        description="preferred: it takes only jobs that prefer SIMULATED. any: it takes all jobs."
    )
    launch_ms: float = strawberry.field(description="How long a launch takes, in milliseconds.")
    run_ms: float = strawberry.field(description="How long a job runs, in milliseconds.")
    exit_code: int = strawberry.field(description="The exit code of its jobs.")
    fail_launch: float = strawberry.field(description="The share of launches that fail, from 0 to 1.")
    health_ms: float = strawberry.field(description="How long a probe takes, in milliseconds.")
    healthy: bool = strawberry.field(description="Whether its probes succeed.")


HostSettings = Annotated[
    DockerSettings | CloudRunSettings | SimulatedSettings,
    strawberry.union("HostSettings", description="The settings of a host, by executor type."),
]


def settings_of(
    executor_type: str, config: Mapping[str, Any]
) -> DockerSettings | CloudRunSettings | SimulatedSettings | None:
    """The settings in a config; None for one that an earlier version has stored and this one does not understand."""
    try:
        read = _READ.get(executor_type)
        return read(config) if read else None
    except (KeyError, ValidationError):
        return None


def _docker(config: Mapping[str, Any]) -> DockerSettings:
    known = DockerConfig.model_validate(config)
    return DockerSettings(
        **_same(known, "url", "node", "network", "pull", "registries", "capabilities"),
        **_same(known, "max_launches", "max_pulls", "max_processes"),
        has_tls=known.tls is not None,
        verifies_certificate=known.tls is not None and known.tls.verify,
        allows_user=known.allow.user,
        allowed_networks=known.allow.networks,
        mounts=[Mount(path=path, **dict(mount)) for path, mount in known.mounts.items()],
        registry_logins=[
            RegistryLogin(registry=name, username=login.username) for name, login in known.registry_auth.items()
        ],
    )


def _cloudrun(config: Mapping[str, Any]) -> CloudRunSettings:
    known = CloudRunConfig.model_validate(config)
    return CloudRunSettings(
        **_same(known, "project", "region", "endpoint", "service_account", "poll_seconds", "max_launches"),
        vpc=None if known.vpc is None else VpcSettings(**dict(known.vpc)),
        longest_timeout_seconds=known.limits.timeout_seconds,
    )


def _simulated(config: Mapping[str, Any]) -> SimulatedSettings:
    known = SimulatedConfig.model_validate(config)
    names = ("accept", "launch_ms", "run_ms", "exit_code", "fail_launch", "health_ms", "healthy")
    return SimulatedSettings(**_same(known, *names))


def _same(known: object, *names: str) -> dict[str, Any]:
    return {name: getattr(known, name) for name in names}


_READ: dict[str, Callable[[Mapping[str, Any]], DockerSettings | CloudRunSettings | SimulatedSettings]] = {
    "docker": _docker,
    "cloudrun": _cloudrun,
    "simulated": _simulated,
}
