"""A database that an older version has written."""

from django.core.management import call_command
from django.db import connection
from django.db.migrations import AddField, AddIndex, CreateModel, RunPython, SeparateDatabaseAndState
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from container_manager.models import ContainerJob, ExecutorHost, RoutingDecision
from container_manager.store import decisions, jobs, scheduling
from container_manager.store.transaction import commit_one
from tests.factories import ContainerJobFactory

APP = "container_manager"
RELEASED = "0004_cloudrun"
"""Versions from here on are upgraded one process after the other."""


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
    commit_one(scheduling.route_pending, None)
    assert list(ContainerJob.objects.values_list("status", flat=True)) == ["routed"] * 3
    assert len(set(ContainerJob.objects.values_list("class_key", flat=True))) == 2
    commit_one(jobs.submit, jobs.Submission([ContainerJobFactory.build()]))
    before = RoutingDecision.objects.earliest("pk")
    assert before.reason == "full"
    assert decisions.evaluations([before.evaluation_id]) == {}


def test_migrations_only_add_so_that_a_version_before_goes_on() -> None:
    loader = MigrationLoader(None)
    later = [
        loader.disk_migrations[key] for key in sorted(loader.disk_migrations) if key[0] == APP and key[1] > RELEASED
    ]
    assert later
    for operation in (operation for migration in later for operation in migration.operations):
        if isinstance(operation, SeparateDatabaseAndState) and not operation.database_operations:
            continue  # changes Python only
        assert isinstance(operation, (CreateModel, AddField, AddIndex, RunPython)), operation.describe()
        if isinstance(operation, AddField):
            assert operation.field.null or operation.field.has_db_default(), f"{operation.name} needs a db_default"


def test_a_version_before_writes_into_the_tables_of_this_one(transactional_db: None) -> None:
    before = MigrationExecutor(connection).loader.project_state([(APP, RELEASED)]).apps
    before.get_model(APP, "ContainerJob").objects.create(image="x", class_key="x")
    before.get_model(APP, "ExecutorHost").objects.create(name="h", executor_type="simulated")
    before.get_model(APP, "Installation").objects.create(instance="i", canary=b"")
    assert ContainerJob.objects.get().image == "x"
    assert ExecutorHost.objects.get().name == "h"
