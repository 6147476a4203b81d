"""A backend for Django's tasks: each task runs in a container of its own, on the host that routing chooses.

    TASKS = {
        "default": {
            "BACKEND": "container_manager.tasks.ContainerBackend",
            "OPTIONS": {"image": "registry.example.org/shop:7", "job": {"memory_limit_mb": 512}},
        }
    }

The image has the project; the container runs `python manage.py run_container_task`. For Django before 6.0, install the
extra `tasks`, which brings the package django-tasks.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Error
from django.utils.module_loading import import_string

from container_manager.domain.lifecycle import JobStatus
from container_manager.embed import Submitted, submit
from container_manager.models import ContainerJob
from container_manager.store import attempts, outputs

if TYPE_CHECKING:
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.base import Task, TaskError, TaskResult, TaskResultStatus
    from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist
else:
    try:
        from django.tasks.backends.base import BaseTaskBackend
        from django.tasks.base import Task, TaskError, TaskResult, TaskResultStatus
        from django.tasks.exceptions import InvalidTask as InvalidTaskError
        from django.tasks.exceptions import TaskResultDoesNotExist
    except ImportError:
        from django_tasks.backends.base import BaseTaskBackend
        from django_tasks.base import Task, TaskError, TaskResult, TaskResultStatus
        from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist

ACTOR = "django task"
COMMAND = ("python", "manage.py", "run_container_task")
MARK = "container-manager-result: "
"""Begins the line in which the container tells the result of its task."""

OPTIONS = {"image", "command", "job", "queues"}
LONGEST_RESULT = 60_000
"""Characters of a result as JSON; the log of a container cuts longer lines."""

RUNNING = {JobStatus.LAUNCHING, JobStatus.RUNNING}


class JobFailed(Exception):
    """The container of a task ended without telling a result; the traceback says how."""


class ContainerBackend(BaseTaskBackend):
    """Runs tasks as jobs. A task is enqueued in the present transaction: it runs if that is committed.

    OPTIONS: `image`; `command`, which runs `manage.py run_container_task` in it; `job`, options of `submit` for all
    tasks; `queues`, such options by the name of a queue.
    """

    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def check(self, **_: Any) -> Iterable[CheckMessage]:
        """What is wrong with OPTIONS."""
        unknown = set(self.options) - OPTIONS
        if unknown:
            yield Error(f"TASKS[{self.alias!r}]: OPTIONS has no {sorted(unknown)[0]!r}.", id="container_manager.E010")
        if not self.options.get("image"):
            yield Error(f"TASKS[{self.alias!r}]: OPTIONS needs an image.", id="container_manager.E011")

    def validate_task(self, task: "Task[Any, Any]") -> None:
        """Refuse what cannot run in a container.

        Raises:
            InvalidTaskError: the task takes a context, which a container does not have, or Django refuses it.
        """
        super().validate_task(task)
        if task.takes_context:
            raise InvalidTaskError("Backend does not pass a context to tasks.")

    def enqueue(self, task: "Task[Any, Any]", args: Sequence[Any], kwargs: Mapping[str, Any]) -> "TaskResult[Any]":
        """Submit the task as a job.

        Raises:
            ValidationFailed: an option of the job has no good value.
        """
        self.validate_task(task)
        call = json.dumps({"args": list(args), "kwargs": dict(kwargs)})
        queues: Mapping[str, Mapping[str, Any]] = self.options.get("queues", {})
        submitted = submit(
            self.options["image"],
            [*self.options.get("command", COMMAND), task.module_path, call],
            actor=ACTOR,
            **{
                "name": task.name,
                "priority": task.priority,
                "labels": {"task": task.name, "queue": task.queue_name},
                **self.options.get("job", {}),
                **queues.get(task.queue_name, {}),
            },
        )
        return self._result(task, submitted.key, args, kwargs)

    def get_result(self, result_id: str) -> "TaskResult[Any]":
        """The result of a task by its id.

        Raises:
            TaskResultDoesNotExist: there is none, or it was deleted with its job.
        """
        submitted = Submitted(result_id, ACTOR)
        # Between two reads, the service may make a job of what has waited.
        job = submitted.job() or submitted.waiting() or submitted.job()
        if job is None or len(job.command) < 2:
            raise TaskResultDoesNotExist(result_id)
        path, call = job.command[-2:]
        task, arguments = import_string(path), json.loads(call)
        result = self._result(task, result_id, arguments["args"], arguments["kwargs"])
        return result if job.pk is None else _with_state(result, job)

    def _result(
        self, task: "Task[Any, Any]", key: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> "TaskResult[Any]":
        return TaskResult(
            task=task, id=key, status=TaskResultStatus.READY, enqueued_at=None, started_at=None, finished_at=None,
            last_attempted_at=None, args=list(args), kwargs=dict(kwargs), backend=self.alias, errors=[], worker_ids=[],
        )  # fmt: skip


def _with_state(result: "TaskResult[Any]", job: ContainerJob) -> "TaskResult[Any]":
    """The result as its job stands."""
    tried = [*attempts.of_jobs([job.pk])[job.pk], *([attempts.latest(job, job.host)] if job.host else [])]
    state: dict[str, Any] = {
        "enqueued_at": job.submitted_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "last_attempted_at": job.launched_at,
    }
    result.worker_ids.extend(attempt.host_name for attempt in tried if attempt.host_name)
    if job.finished_at is not None:
        told = _told(job)
        is_done = job.status == JobStatus.SUCCEEDED and told is not None and "value" in told
        state["status"] = TaskResultStatus.SUCCESSFUL if is_done else TaskResultStatus.FAILED
        if told is not None and "value" in told:
            state["_return_value"] = told["value"]
        elif told is not None and "error" in told:
            result.errors.append(TaskError(exception_class_path=told["error"], traceback=told["traceback"]))
        else:
            why = job.error or f"It is {job.status}, exit code {job.exit_code}, and has told no result."
            result.errors.append(TaskError(exception_class_path=f"{__name__}.{JobFailed.__name__}", traceback=why))
    elif job.status in RUNNING:
        state["status"] = TaskResultStatus.RUNNING
    for name, value in state.items():
        # As django.tasks itself does with this frozen class.
        object.__setattr__(result, name, value)
    return result


def _told(job: ContainerJob) -> dict[str, Any] | None:
    """What the latest attempt has told about its task."""
    told = None
    for part in outputs.of_jobs([job.pk])[job.pk]:
        if part.attempt == job.attempt and part.part == outputs.OUTPUT:
            for numbered in part.lines():
                if numbered.line.text.startswith(MARK):
                    # What the task has printed itself is no result.
                    with suppress(ValueError):
                        told = json.loads(numbered.line.text.removeprefix(MARK))
    return told if isinstance(told, dict) else None
