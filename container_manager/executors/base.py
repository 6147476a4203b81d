"""The interface of an executor, and its obligations.

A package adds an executor by a subclass of `ContainerExecutor` with its config class as `Config`, and an entry point
in the group `container_manager.executors`, whose name is the type of its hosts. `container_manager.testing` has the
tests that every executor must pass.
"""

import abc
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar

from container_manager.executors.configs import Settings
from container_manager.executors.exceptions import ExecutorClosedError
from container_manager.executors.output import Output, OutputLine

LABEL = "container-manager"
"""The prefix of the labels of this service."""

Report = Callable[[str], None]
"""Takes sentences about the progress of a step that takes long."""


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """What an executor is built from. Times are in seconds, `output_limit` in bytes."""

    name: str
    config: Mapping[str, Any]
    instance: str = ""
    max_jobs: int = 10
    call_timeout: float = 10
    launch_timeout: float = 60
    pull_timeout: float = 600
    output_limit: int = 1_048_576


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One attempt of one job. `name` is derived from both; an executor adds what makes it unique.

    Empty fields are left to the image or the host. `tmpfs` has sizes in MiB by path; `shm_mb` is the
    size of /dev/shm in MiB. Of pulls that wait, the one of the highest `priority` comes first.
    """

    job_id: int
    attempt: int
    name: str
    image: str
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_mb: int = 0
    cpu_millis: int = 0
    timeout_seconds: int = 0
    entry_point: Sequence[str] = ()
    working_dir: str = ""
    user: str = ""
    network: str = ""
    read_only_root: bool = False
    tmpfs: Mapping[str, int] = field(default_factory=dict)
    shm_mb: int = 0
    priority: int = 0

    @property
    def variables(self) -> dict[str, str]:
        """The job's environment, with the job and the attempt added."""
        own = {"CONTAINER_MANAGER_JOB": str(self.job_id), "CONTAINER_MANAGER_ATTEMPT": str(self.attempt)}
        return {**self.environment, **own}


@dataclass(frozen=True, slots=True)
class Execution:
    """What an executor created for an attempt; `id` is the executor's own."""

    id: str
    spec: LaunchSpec


class ExecutionState(Enum):
    """CREATED was not started; STARTING was, but does not run yet; EXITED never runs again."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class ExecutionStatus:
    """What an executor reports about an execution.

    `interrupted`: the host ended it, for instance by a restart of its engine, or never ran it; `error` says how.
    `runs_again`: a person has started it again after the end that is reported.
    `timed_out`: the executor enforced the job's timeout. `cancelled`: a client of the host's own API had it stopped.
    """

    id: str
    state: ExecutionState
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    out_of_memory: bool = False
    error: str = ""
    interrupted: bool = False
    runs_again: bool = False
    timed_out: bool = False
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class OwnedExecution:
    """An execution that carries this installation's labels."""

    id: str
    job_id: int
    attempt: int
    state: ExecutionState

    def as_execution(self) -> Execution:
        """As an execution that can be stopped; the rest of its spec is unknown."""
        return Execution(self.id, LaunchSpec(self.job_id, self.attempt, self.id[:12], ""))


class ContainerExecutor(abc.ABC):
    """Runs containers on one host.

    Every method has a deadline of its own (`wait` has one for each call to the host) and raises only ExecutorErrors.
    ExecutorConnectionError means that the effect of the call is unknown: it must be looked up, never assumed.
    An executor belongs to the event loop in which it is first used.
    """

    Config: ClassVar[type[Settings]] = Settings
    """The settings of a host, for an executor of a package."""

    offers_everything: ClassVar[bool] = False
    """Whether its hosts run jobs that ask for a user, a network and the like; for an executor of a package."""

    def __init__(self, settings: ExecutorSettings) -> None:
        self.settings = settings

    @property
    def max_launches(self) -> int:
        """How many launches may be in progress at once."""
        return 5

    @abc.abstractmethod
    async def health_check(self) -> bool:
        """Use what a launch needs. False or an ExecutorError mean that the host is not healthy."""

    @abc.abstractmethod
    async def get_capacity_info(self) -> dict[str, Any]:
        """`max_jobs`, `current_jobs`, `available_slots`; and what the host reports of its size and of itself.

        These are `memory_mb`, `cpu_cores`, `engine` (its name and version) and `engine_id` (the same for two addresses
        of one engine).
        """

    @property
    def has_quota(self) -> bool:
        """Whether the host may refuse calls because a quota is used up."""
        return False

    @property
    def settle_seconds(self) -> float:
        """How long a start that got no answer may take to become visible once the host answers again."""
        return 2.0

    @property
    def prepares(self) -> bool:
        """Whether `prepare` does anything."""
        return False

    async def prepare(self, spec: LaunchSpec, report: Report = lambda _: None) -> bool:  # noqa: ARG002
        """Make ready what `create` needs and what may take minutes, such as the image; returns True.

        It does not count as one of the `max_launches`. `report` is called with its progress.

        Raises:
            ExecutorConfigurationError: the image does not exist.
            ExecutorAuthenticationError: a registry refuses the image to the host.
            ExecutorOperationError: the image could not be brought to the host.
        """
        return True

    @abc.abstractmethod
    async def create(self, spec: LaunchSpec, report: Report = lambda _: None) -> str:
        """Prepare a new execution without running it and return its id, which no other execution ever has.

        `report` is called with the progress of a preparation that takes long.

        Raises:
            ExecutorConfigurationError: the image does not exist, or the host rejects these settings.
            ExecutorAuthenticationError: a registry refuses the image to the host.
            ExecutorResourceError: a quota is used up.
        """

    @abc.abstractmethod
    async def start(self, execution: Execution) -> ExecutionState:
        """Run what `create` prepared; returns RUNNING or STARTING. Must not run it a second time."""

    @abc.abstractmethod
    async def find(self, spec: LaunchSpec) -> ExecutionStatus | None:
        """An execution that says that it is this attempt's; None when there is none.

        It may have been created by another worker, by a person or before a backup was restored, so it is never started
        and its result is never taken.
        """

    @abc.abstractmethod
    async def status(self, execution: Execution) -> ExecutionStatus | None:
        """The state of an execution; None when the host does not know it."""

    async def explain(self, execution: Execution, status: ExecutionStatus) -> ExecutionStatus:  # noqa: ARG002
        """The status of an execution that has ended, with what the host knows about the cause.

        `interrupted` and `error` are set when the end was caused from outside, whatever the exit code is. Not called
        for an execution that this service has stopped.
        """
        return status

    async def recall(self, execution: Execution) -> None:
        """Learn what has happened to an execution before this worker took it over, as far as the host knows.

        Afterwards `status` tells an execution that was started again by hand from one that runs for the first time.
        """

    @abc.abstractmethod
    async def wait(self, execution: Execution, seen: ExecutionState = ExecutionState.RUNNING) -> ExecutionStatus | None:
        """Return the status once the execution has left the state `seen`; None when the host does not know it.

        Also notices executions that end while the host does not answer, and connections that end without a signal.
        """

    @abc.abstractmethod
    async def logs(self, execution: Execution) -> Output:
        """Its output, stdout and stderr apart, at most `settings.output_limit` bytes."""

    @abc.abstractmethod
    def follow(self, execution: Execution, since_ns: int = 0) -> AsyncGenerator[OutputLine, None]:
        """Its output from that time on (nanoseconds since 1970), live, until it has ended."""

    @abc.abstractmethod
    async def has_run(self, execution: Execution) -> bool | None:
        """Whether an execution that is gone, and was not seen running, was ever started; None when that is unknown."""

    @abc.abstractmethod
    async def stop(self, execution: Execution, grace: float) -> bool:
        """Send TERM, and KILL after `grace` seconds. Returns False when it had ended before."""

    @abc.abstractmethod
    async def remove(self, execution_id: str) -> None:
        """Remove an execution that does not run. It is no error when it is gone already."""

    @abc.abstractmethod
    async def list_owned(self) -> list[OwnedExecution]:
        """All executions of this installation."""

    def _closed_error(self) -> ExecutorClosedError:
        return ExecutorClosedError(f"host {self.settings.name}: its settings were changed.")

    async def aclose(self) -> None:
        """Close connections; calls in progress raise ExecutorClosedError. May be called twice."""
