"""Executors that answer as a test says: the one seam where a real part cannot be made to misbehave on demand."""

from datetime import datetime
from unittest.mock import AsyncMock, Mock, create_autospec

from django.utils import timezone

from container_manager.executors.base import ContainerExecutor, ExecutionState, ExecutionStatus, ExecutorSettings
from container_manager.executors.factory import ExecutorFactory
from container_manager.executors.output import Output


def executor_stand_in(
    *, at: datetime | None = None, settings: ExecutorSettings | None = None, **answers: object
) -> AsyncMock:
    """An executor whose methods give these answers: a value, an exception, or a list of them, one for each call.

    By default a launch succeeds and the execution has ended with exit code 0.
    """
    at = at or timezone.now()
    executor: AsyncMock = create_autospec(ContainerExecutor, instance=True)
    executor.settings = settings or ExecutorSettings("stand-in", {})
    executor.settle_seconds, executor.has_quota, executor.max_launches = 0.01, False, 5
    executor.prepares = True
    executor.explain.side_effect = lambda _, status: status
    defaults = {
        "prepare": True,
        "create": "id",
        "start": ExecutionState.RUNNING,
        "find": None,
        "status": None,
        "wait": ExecutionStatus("id", ExecutionState.EXITED, 0, at, at),
        "logs": Output(),
        "has_run": False,
        "remove": None,
        "health_check": True,
    }
    for method, answer in (defaults | answers).items():
        mock = getattr(executor, method)
        if isinstance(answer, (list, Exception)):
            mock.side_effect = answer
        else:
            mock.return_value = answer
    return executor


def factory_of(executor: ContainerExecutor) -> Mock:
    """A factory whose hosts all have this executor."""
    factory: Mock = create_autospec(ExecutorFactory, instance=True)
    real = ExecutorFactory(instance="x")
    factory.instance, factory.launch_spec = real.instance, real.launch_spec
    factory.get_executor = lambda _: executor
    factory.max_launches = lambda _: 5
    return factory
