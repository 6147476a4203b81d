"""The client's values and options."""

import inspect

import pytest
from pydantic import TypeAdapter

from container_manager.client import AsyncClient, AsyncJob, Client, Job, JobInput, JobOptions, JobStatus, job_input
from container_manager.client.errors import CursorExpired, Unreachable, of_api


def test_the_options_are_the_fields_of_a_job() -> None:
    assert JobOptions.__annotations__.keys() | {"image", "command"} == JobInput.model_fields.keys()


@pytest.mark.parametrize(("asynchronous", "blocking"), [(AsyncClient, Client), (AsyncJob, Job)])
def test_both_clients_have_the_same_verbs(asynchronous: type, blocking: type) -> None:
    verbs = {name for name in vars(asynchronous) if not name.startswith("_")} - {"aclose"}
    assert verbs == {name for name in vars(blocking) if not name.startswith("_")} - {"close", "call", "data"}
    for name in verbs:
        one, other = getattr(asynchronous, name), getattr(blocking, name)
        if callable(one):
            assert list(inspect.signature(one).parameters) == list(inspect.signature(other).parameters), name


def test_a_job_is_given_by_options() -> None:
    job = job_input("x", ["y"], environment={"A": "1"}, tmpfs={"/t": 5}, preferred_executor="docker", strategy="packed")
    assert job.model_dump(mode="json", by_alias=True, exclude_unset=True) == {
        "image": "x", "command": ["y"], "environment": [{"name": "A", "value": "1"}],
        "tmpfs": [{"path": "/t", "sizeMb": 5}], "preferredExecutor": "DOCKER", "strategy": "PACKED",
    }  # fmt: skip
    with pytest.raises(TypeError, match="priority: Input should be a valid integer"):
        job_input("x", priority="high")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"command: must be a list of arguments, such as \['echo', 'hi'\]"):
        job_input("x", "echo hi")


def test_a_value_that_a_newer_server_has_invented_is_kept() -> None:
    status = TypeAdapter(JobStatus).validate_python("SUSPENDED")
    assert (status, status.value, repr(status)) == ("SUSPENDED", "SUSPENDED", "<JobStatus.SUSPENDED: 'SUSPENDED'>")
    assert JobStatus("RUNNING") is JobStatus.RUNNING


def test_errors_of_the_api_have_types() -> None:
    expired = of_api({"message": "m", "extensions": {"code": "CURSOR_EXPIRED", "oldest": "7"}})
    assert isinstance(expired, CursorExpired)
    assert (expired.oldest, expired.code) == ("7", "CURSOR_EXPIRED")
    assert isinstance(of_api({"message": "m", "extensions": {"code": "UNAVAILABLE"}}), Unreachable)
    assert str(of_api({"message": "m"})) == "m"
