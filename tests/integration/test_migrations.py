"""A database that an older version has written."""

from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from container_manager.models import ContainerJob, ExecutorHost, RoutingDecision
from container_manager.store import decisions, jobs, routing
from container_manager.store.transaction import commit_one
from tests.factories import ContainerJobFactory

APP = "container_manager"


def test_jobs_that_waited_before_an_upgrade_are_routed_after_it(transactional_db: None) -> None:
    call_command("migrate", APP, "0001", verbosity=0)
    old = MigrationExecutor(connection).loader.project_state([(APP, "0001_initial")]).apps
    old.get_model(APP, "ExecutorHost").objects.create(
        name="h", executor_type="docker", health_status="healthy", max_concurrent_jobs=9
    )
    for memory in (64, 64, 65):
        old.get_model(APP, "ContainerJob").objects.create(image="x", memory_limit=memory, host_selector={"a": "b"})
    record = old.get_model(APP, "RoutingEvaluation").objects.create(record=b"in an older form")
    old.get_model(APP, "RoutingDecision").objects.create(
        job_id=1, attempt=1, strategy="weighted", verdict="NOT_NOW", reason="full", evaluation_id=record.pk, position=0
    )
    call_command("migrate", verbosity=0)
    ExecutorHost.objects.update(labels={"a": "b"})
    commit_one(routing.route_waiting, None)
    assert list(ContainerJob.objects.values_list("status", flat=True)) == ["routed"] * 3
    assert len(set(ContainerJob.objects.values_list("class_key", flat=True))) == 2
    commit_one(jobs.submit, jobs.Submission([ContainerJobFactory.build()]))
    before = RoutingDecision.objects.earliest("pk")
    assert before.reason == "full"
    assert decisions.evaluations([before.evaluation_id]) == {}
