"""The interface of a place that runs containers, and its obligations."""

import abc
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from container_manager.executors.exceptions import ExecutorClosedError
from container_manager.executors.output import Output, OutputLine

LABEL = "container-manager"
"""What our labels begin with."""

Tell = Callable[[str], None]
"""Hears in sentences how something that takes its time gets on."""


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """What an executor is built from. Times are in seconds."""

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
    """One attempt of one job. `name` is made from both, so that a launch repeated finds the first one.

    What is empty is as the image or the host has it. `tmpfs` is in MiB by path.
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

    @property
    def variables(self) -> dict[str, str]:
        """The environment, and which job and attempt it is."""
        own = {"CONTAINER_MANAGER_JOB": str(self.job_id), "CONTAINER_MANAGER_ATTEMPT": str(self.attempt)}
        return {**self.environment, **own}


@dataclass(frozen=True, slots=True)
class Execution:
    """A launch at an executor; `id` is the executor's own."""

    id: str
    spec: LaunchSpec


class ExecutionState(Enum):
    """CREATED has not been started; STARTING has, and does not run yet; EXITED never runs again."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class ExecutionStatus:
    """What an executor says about an execution.

    `interrupted`: the executor itself has ended it, as by a restart, or has never run it; `error` says how.
    `timed_out`: the executor has counted the job's timeout, and has ended it. `cancelled`: somebody had it ended.
    """

    id: str
    state: ExecutionState
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    out_of_memory: bool = False
    error: str = ""
    interrupted: bool = False
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
        """Enough of it to stop it."""
        return Execution(self.id, LaunchSpec(self.job_id, self.attempt, self.id[:12], ""))


class ContainerExecutor(abc.ABC):
    """Runs containers on one host.

    Every method has a deadline of its own (`wait` only per call to the outside) and raises an ExecutorError;
    ExecutorConnectionError means that the effect is unknown and must be looked up, never assumed.
    An executor belongs to the event loop in which it is first used.
    """

    def __init__(self, settings: ExecutorSettings) -> None:
        self.settings = settings

    @property
    def max_launches(self) -> int:
        """How many launches may be under way at once."""
        return 5

    @abc.abstractmethod
    async def health_check(self) -> bool:
        """Touch what a launch needs. False or an ExecutorError: not healthy."""

    @abc.abstractmethod
    async def get_capacity_info(self) -> dict[str, Any]:
        """`max_jobs`, `current_jobs`, `available_slots`; and `memory_mb`, `cpu_cores` where the engine says so."""

    @property
    def has_quota(self) -> bool:
        """Whether calls may be refused because there were too many."""
        return False

    @property
    def settle_seconds(self) -> float:
        """How long a start without an answer has to show, once the executor answers again."""
        return 2.0

    @abc.abstractmethod
    async def create(self, spec: LaunchSpec, tell: Tell = lambda _: None) -> str:
        """Prepare the execution without running it and return its id, which no other one ever has.

        `tell` hears how a preparation that takes its time gets on.

        Raises:
            ExecutorConfigurationError: the image does not exist or the engine will not take these settings.
            ExecutorResourceError: a quota is used up.
        """

    @abc.abstractmethod
    async def start(self, execution: Execution) -> ExecutionState:
        """Run what `create` prepared: RUNNING, or STARTING. Must not run again what has run already."""

    @abc.abstractmethod
    async def find(self, spec: LaunchSpec) -> ExecutionStatus | None:
        """The execution of that name, or None when there is none."""

    @abc.abstractmethod
    async def status(self, execution: Execution) -> ExecutionStatus | None:
        """What became of an execution, or None when the executor does not know it."""

    async def explain(self, execution: Execution, status: ExecutionStatus) -> ExecutionStatus:  # noqa: ARG002
        """The status of one that has failed, with `error` and `interrupted` as far as the executor knows more.

        Asked for when nothing else explains its end, because it may take several calls.
        """
        return status

    @abc.abstractmethod
    async def wait(self, execution: Execution, seen: ExecutionState = ExecutionState.RUNNING) -> ExecutionStatus | None:
        """Return once the execution is further than `seen`, with its verdict; None when the executor does not know it.

        Notices also what ends while the executor does not answer, and connections that die without a word.
        """

    @abc.abstractmethod
    async def logs(self, execution: Execution) -> Output:
        """What it wrote, stdout and stderr apart, bounded by `settings.output_limit`."""

    @abc.abstractmethod
    def follow(self, execution: Execution, since_ns: int = 0) -> AsyncGenerator[OutputLine, None]:
        """What it writes from that time on (nanoseconds since 1970), as it does, until it has ended."""

    @abc.abstractmethod
    async def has_run(self, execution: Execution) -> bool | None:
        """Whether an execution that is gone, and was not seen running, was ever started; None: nobody can tell."""

    @abc.abstractmethod
    async def stop(self, execution: Execution, grace: float) -> bool:
        """Ask it to end (TERM), and end it (KILL) after `grace` seconds. False: it had ended by itself before."""

    @abc.abstractmethod
    async def remove(self, execution_id: str) -> None:
        """Remove an execution that does not run. Gone already is success."""

    @abc.abstractmethod
    async def list_owned(self) -> list[OwnedExecution]:
        """All executions of this installation."""

    def _hung_up(self) -> ExecutorClosedError:
        return ExecutorClosedError(f"host {self.settings.name}: its settings were changed.")

    async def aclose(self) -> None:
        """Close connections; calls under way raise ExecutorConnectionError. Safe to call twice."""
