from importlib import import_module

from django.db import migrations, models
from django.utils import timezone

AddColumn = import_module("container_manager.migrations.0011_who_and_why").AddColumn

KINDS = """
    job_submitted job_routed job_refused job_progress job_launched job_started job_finished job_retried
    job_cancel_requested job_cancelled host_created host_updated host_health_changed host_ejected host_cooldown
    host_reserved host_released host_drained host_empty host_resumed host_lost host_swept host_deleted
"""


def settle(apps, schema_editor):  # noqa: ARG001
    """Drained hosts that are empty already have nothing to tell, least of all to processes of the version before."""
    hosts = apps.get_model("container_manager", "ExecutorHost").objects.filter(is_draining=True)
    hosts.exclude(jobs__status__in=["routed", "launching", "running"]).update(empty_since=timezone.now())


class Migration(migrations.Migration):
    dependencies = [("container_manager", "0012_statistics")]

    operations = [
        # Neither the list of kinds nor the names for people are in the tables.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    "routingevent",
                    "kind",
                    models.CharField(
                        choices=[(kind, kind.replace("_", " ").title()) for kind in KINDS.split()],
                        max_length=24,
                    ),
                ),
                migrations.AlterModelOptions("apitoken", {"verbose_name": "API token"}),
                migrations.AlterModelOptions("auditentry", {"verbose_name_plural": "audit entries"}),
                migrations.AlterModelOptions("jobstatistics", {"verbose_name_plural": "statistics of jobs"}),
            ]
        ),
        AddColumn("executorhost", "empty_since", models.DateTimeField(null=True, default=None)),
        migrations.CreateModel(
            "HostUsage",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("host_id", models.BigIntegerField()),
                ("seconds", models.PositiveIntegerField()),
                ("start", models.DateTimeField()),
                ("samples", models.PositiveIntegerField()),
                ("jobs", models.BigIntegerField()),
                ("most_jobs", models.BigIntegerField()),
                ("memory_mb", models.BigIntegerField()),
                ("cpu_millis", models.BigIntegerField()),
                ("answers", models.PositiveIntegerField()),
                ("latency_ms", models.FloatField()),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("host_id", "seconds", "start"), name="one_usage_per_time")
                ],
                "indexes": [models.Index(fields=["seconds", "start"], name="usage_age")],
                "verbose_name_plural": "usage of hosts",
            },
        ),
        migrations.RunPython(settle, migrations.RunPython.noop),
    ]
