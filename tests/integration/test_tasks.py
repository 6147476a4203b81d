"""Results of Django's tasks that run as jobs."""

from unittest.mock import patch

from container_manager.embed import Submitted
from container_manager.tasks import ContainerBackend
from tests.factories import ContainerJobFactory


def test_a_result_is_found_while_the_service_makes_a_job_of_its_task() -> None:
    job = ContainerJobFactory(command=["python", "math.sqrt", '{"args": [4], "kwargs": {}}'])
    backend = ContainerBackend("default", {"OPTIONS": {"image": "busybox"}})
    # It was neither a job yet nor waits any more.
    with patch.object(Submitted, "job", side_effect=[None, job]), patch.object(Submitted, "waiting", return_value=None):
        result = backend.get_result("a-key")
    assert (result.id, result.args) == ("a-key", [4])
