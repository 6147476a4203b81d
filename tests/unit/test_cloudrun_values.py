"""What Cloud Run's answers and errors mean, and what it is sent, without a server."""

from datetime import UTC, datetime, timedelta

import pytest
from google.api_core import exceptions as google
from google.cloud import run_v2
from google.rpc import code_pb2

from container_manager.executors.base import ExecutionState, LaunchSpec
from container_manager.executors.cloudrun.errors import Translator, message_of
from container_manager.executors.cloudrun.status import job_id_of, status_of_execution
from container_manager.executors.cloudrun.template import job_template
from container_manager.executors.configs import CloudRunConfig
from container_manager.executors.exceptions import (
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorHostError,
    ExecutorOperationError,
    ExecutorResourceError,
)

PLACE = {"project": "demo-project", "region": "europe-west1"}
START = datetime(2026, 11, 27, 10, tzinfo=UTC)
END = START + timedelta(seconds=5)


def config(**changes: object) -> CloudRunConfig:
    return CloudRunConfig.model_validate(PLACE | changes)


def translator() -> Translator:
    return Translator("run", config())


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("text", "code", "kind"),
    [
        ("Quota exceeded.", code_pb2.RESOURCE_EXHAUSTED, ExecutorResourceError),
        ("Permission denied.", code_pb2.PERMISSION_DENIED, ExecutorHostError),
        ("The service account does not exist.", code_pb2.INVALID_ARGUMENT, ExecutorHostError),
        ("The VPC connector is not ready.", code_pb2.INVALID_ARGUMENT, ExecutorHostError),
        ("Billing is disabled.", code_pb2.FAILED_PRECONDITION, ExecutorHostError),
        ("Memory must be at least 512Mi.", code_pb2.INVALID_ARGUMENT, ExecutorConfigurationError),
        # Names may contain any word.
        ("Image 'eu.gcr.io/team/network-probe' not found.", code_pb2.NOT_FOUND, ExecutorConfigurationError),
        ('Variable "VPC" is reserved.', code_pb2.INVALID_ARGUMENT, ExecutorConfigurationError),
        ("Image eu.gcr.io/billing/app not found.", code_pb2.NOT_FOUND, ExecutorConfigurationError),
    ],
)
def test_a_refused_job_is_caused_by_a_quota_the_host_or_the_job(text: str, code: int, kind: type) -> None:
    error = translator().refused(text, code)
    assert type(error) is kind
    assert str(error).startswith("host run: ")
    assert text in str(error)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (google.ResourceExhausted("slow down"), ExecutorResourceError, "a quota of Cloud Run is used up: slow down."),
        (google.DeadlineExceeded("late"), ExecutorConnectionError, "no answer in time while listing jobs."),
        (TimeoutError(), ExecutorConnectionError, "no answer in time while listing jobs."),
        (google.ServiceUnavailable("away"), ExecutorConnectionError, "does not answer: away."),
        (google.InternalServerError("oops"), ExecutorConnectionError, "does not answer: oops."),
        (google.Unknown("what"), ExecutorConnectionError, "does not answer: what."),
        (
            google.ServiceUnavailable("Getting metadata from plugin failed with error: no key"),
            ExecutorConnectionError,
            "config.credentials: there is no access token: no key.",
        ),
        (google.NotFound("gone"), ExecutorOperationError, "while listing jobs: gone."),
        (google.FailedPrecondition("busy"), ExecutorOperationError, "while listing jobs: busy."),
    ],
)
def test_a_failed_call_says_whether_it_may_have_had_its_effect(
    error: Exception, kind: type[ExecutorError], text: str
) -> None:
    translated = translator().failed(error, "listing jobs")
    assert type(translated) is kind
    assert str(translated).endswith(text)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            google.PermissionDenied("Permission 'run.jobs.create' denied on resource."),
            "the credentials lack the permission run.jobs.create (project demo-project, europe-west1)",
        ),
        (google.PermissionDenied("No."), "the credentials lack the permission run.jobs.list"),
        (
            google.PermissionDenied("Permission 'run.jobs.list' denied on 'locations/europe-west9'."),
            "config.region: 'europe-west1' may not exist",
        ),
        (
            google.PermissionDenied("Cloud Run Admin API has not been used in project 12 before or it is disabled."),
            "the Cloud Run Admin API is not enabled in project demo-project",
        ),
        (google.Unauthenticated("Invalid credentials"), "config.credentials: Cloud Run does not accept them"),
        (google.MethodNotImplemented("404"), "is config.endpoint the region's own?"),
    ],
)
def test_a_host_that_is_not_set_up_says_what_to_change(error: Exception, text: str) -> None:
    translated = translator().not_set_up(error, "run.jobs.list")
    assert isinstance(translated, ExecutorHostError)
    assert text in str(translated)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (google.NotFound("gone"), "gone."),
        (google.NotFound("Gone."), "Gone."),
        (google.NotFound("two\n  lines"), "two lines."),
        (google.NotFound(""), "no reason given."),
        (google.ServiceUnavailable("failed to connect: Connection refused (111)"), "connection refused."),
        (google.RetryError("Timeout exceeded", cause=google.ServiceUnavailable("away")), "away."),
        (OSError("no route"), "no route."),
    ],
)
def test_the_message_of_an_error_is_one_sentence(error: Exception, message: str) -> None:
    assert message_of(error) == message


# ------------------------------------------------------------------ states


def execution(state: str = "", message: str = "", reason: str = "", **fields: object) -> run_v2.Execution:
    """An execution; `state` and `reason` are those of its condition "Completed"."""
    conditions = []
    if state:
        condition = run_v2.Condition(type_="Completed", state=f"CONDITION_{state}", message=message)
        if reason:
            condition.execution_reason = reason
        conditions = [run_v2.Condition(type_="Started", state="CONDITION_SUCCEEDED"), condition]
    return run_v2.Execution(name="projects/p/locations/r/jobs/j/executions/j-abc", conditions=conditions, **fields)


def task(**result: object) -> run_v2.Task:
    return run_v2.Task(last_attempt_result=run_v2.TaskAttemptResult(**result))


ENDED = {"start_time": START, "completion_time": END}


def test_an_execution_starts_then_runs() -> None:
    assert status_of_execution("j", execution(), None).state is ExecutionState.STARTING
    assert status_of_execution("j", execution(running_count=1), None).state is ExecutionState.RUNNING
    running = status_of_execution("j", execution(start_time=START), None)
    assert (running.state, running.started_at, running.exit_code) == (ExecutionState.RUNNING, START, None)


def test_a_success_needs_no_task() -> None:
    status = status_of_execution("j", execution("SUCCEEDED", **ENDED), None)
    assert (status.state, status.exit_code) == (ExecutionState.EXITED, 0)
    assert (status.started_at, status.finished_at) == (START, END)
    # The library's own subclass of datetime must not reach the database.
    assert type(status.started_at) is datetime


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"exit_code": 7}, {"exit_code": 7, "error": ""}),
        ({"term_signal": 9}, {"exit_code": 137, "error": ""}),
        ({"status": {"code": 4}}, {"exit_code": None, "timed_out": True, "error": "It failed."}),
        ({"exit_code": 137, "status": {"message": "Memory limit of 512 MiB"}}, {"out_of_memory": True}),
        ({"status": {"code": 9, "message": "image"}}, {"exit_code": None, "timed_out": False, "error": "It failed."}),
    ],
)
def test_a_failure_is_that_of_its_task(result: dict, expected: dict) -> None:
    status = status_of_execution("j", execution("FAILED", "It failed.", **ENDED), task(**result))
    assert {name: getattr(status, name) for name in expected} == expected
    assert not status.interrupted


def test_an_execution_that_never_started_is_no_end_of_the_job() -> None:
    never = execution("FAILED", "The image cannot be pulled.", completion_time=END)
    for found in (None, task()):
        status = status_of_execution("j", never, found)
        assert status.interrupted
        assert status.error == "It ended before it was started: The image cannot be pulled."
    assert "gives no reason" in status_of_execution("j", execution("FAILED", completion_time=END), None).error


def test_a_failure_without_a_task_has_cloud_runs_reason() -> None:
    status = status_of_execution("j", execution("FAILED", "Gone.", **ENDED), None)
    assert (status.exit_code, status.error, status.interrupted) == (None, "Gone.", False)


def test_a_cancellation_by_another_client_is_named() -> None:
    running = status_of_execution("j", execution("FAILED", reason="CANCELLED", **ENDED), None)
    assert running.cancelled
    assert running.error == "It was cancelled in Cloud Run, and not by this service."
    waiting = status_of_execution("j", execution("FAILED", cancelled_count=1, completion_time=END), None)
    assert waiting.cancelled
    assert waiting.interrupted


def test_an_execution_names_its_job() -> None:
    assert job_id_of(run_v2.Execution(job="projects/p/locations/r/jobs/one")) == "one"
    assert job_id_of(execution()) == "j"


# ------------------------------------------------------------------ the template


def template_of(spec: LaunchSpec, **changes: object) -> run_v2.TaskTemplate:
    return job_template(spec, (1, 512), config(**changes), "here").template.template


SPEC = LaunchSpec(7, 2, "container-manager-7-2", "busybox:1", ["true"], {"A": "b"}, 256, 500)


def test_jobs_and_executions_carry_the_labels() -> None:
    job = job_template(SPEC, (1, 512), config(), "here")
    labels = {"container-manager-instance": "here", "container-manager-job": "7", "container-manager-attempt": "2"}
    assert dict(job.labels) == dict(job.template.labels) == labels
    assert job.client == "container-manager"


def test_cloud_run_runs_an_attempt_once() -> None:
    job = job_template(SPEC, (1, 512), config(), "here")
    assert (job.template.task_count, job.template.parallelism) == (1, 1)
    assert job.template.template.max_retries == 0


def test_a_task_gets_the_size_the_command_and_the_variables() -> None:
    spec = LaunchSpec(7, 2, "n", "busybox:1", ["-c", "true"], {"A": "b"}, 3000, 3500, entry_point=["sh"])
    (container,) = job_template(spec, (4, 3000), config(), "here").template.template.containers
    assert dict(container.resources.limits) == {"cpu": "4", "memory": "3000Mi"}
    assert (list(container.command), list(container.args)) == (["sh"], ["-c", "true"])
    assert {variable.name: variable.value for variable in container.env}["A"] == "b"


def test_a_timeout_of_the_job_comes_before_that_of_the_region() -> None:
    assert template_of(SPEC).timeout == timedelta(days=1)
    assert template_of(SPEC, limits={"timeout_seconds": 604_800}).timeout == timedelta(days=7)
    spec = LaunchSpec(7, 2, "n", "busybox:1", [], {}, 256, 500, timeout_seconds=90)
    assert template_of(spec).timeout == timedelta(seconds=90)


def test_temporary_folders_are_volumes_in_memory() -> None:
    spec = LaunchSpec(7, 2, "n", "busybox:1", [], {}, 256, 500, tmpfs={"/tmp": 64, "/run": 16})
    task_template = template_of(spec)
    sizes = {volume.name: volume.empty_dir.size_limit for volume in task_template.volumes}
    mounts = {mount.mount_path: sizes[mount.name] for mount in task_template.containers[0].volume_mounts}
    assert mounts == {"/tmp": "64Mi", "/run": "16Mi"}


@pytest.mark.parametrize(
    ("vpc", "egress"),
    [
        ({"connector": "c"}, "PRIVATE_RANGES_ONLY"),
        ({"network": "n", "tags": ["t"]}, "PRIVATE_RANGES_ONLY"),
        ({"network": "n", "subnetwork": "s", "egress": "all-traffic"}, "ALL_TRAFFIC"),
    ],
)
def test_traffic_goes_through_the_connector_or_into_the_network(vpc: dict, egress: str) -> None:
    access = template_of(SPEC, vpc=vpc).vpc_access
    assert access.egress.name == egress
    assert access.connector == vpc.get("connector", "")
    interfaces = [(one.network, one.subnetwork, list(one.tags)) for one in access.network_interfaces]
    expected = [] if "connector" in vpc else [(vpc["network"], vpc.get("subnetwork", ""), vpc.get("tags", []))]
    assert interfaces == expected


def test_without_a_vpc_traffic_is_cloud_runs_own() -> None:
    assert not template_of(SPEC).vpc_access
