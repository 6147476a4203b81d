from django.db import migrations, models

import container_manager.domain.lifecycle

PENDING = container_manager.domain.lifecycle.JobStatus["PENDING"]


class AddColumn(migrations.AddField):
    """Adds a column to the table as it is. On SQLite, AddField makes the table again, which drops its triggers."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != "sqlite":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        field = model._meta.get_field(self.name)  # noqa: SLF001 - Django's documented interface
        definition, parameters = schema_editor.column_sql(model, field)
        add = schema_editor.sql_create_column % {
            "table": schema_editor.quote_name(model._meta.db_table),  # noqa: SLF001
            "column": schema_editor.quote_name(field.column),
            "definition": definition,
        }
        schema_editor.execute(add, parameters)


def _text(length):
    return models.CharField(max_length=length, blank=True, default="", db_default="")


def _moment():
    return models.DateTimeField(null=True, default=None)


class Migration(migrations.Migration):
    dependencies = [("container_manager", "0010_fleet_changes")]

    operations = [
        AddColumn("containerjob", "failure", _text(20)),
        AddColumn("containerjob", "submitted_by", _text(100)),
        AddColumn("containerjob", "cancelled_by", _text(100)),
        AddColumn("containerjob", "queued_at", _moment()),
        AddColumn("containerjob", "routed_at", _moment()),
        AddColumn("jobattempt", "failure", _text(20)),
        AddColumn("jobattempt", "cancelled_by", _text(100)),
        AddColumn("jobattempt", "queued_at", _moment()),
        AddColumn("jobattempt", "routed_at", _moment()),
        AddColumn("routingevent", "attempt", models.PositiveIntegerField(null=True, default=None)),
        AddColumn("routingevent", "actor", _text(100)),
        migrations.AddIndex(
            "containerjob",
            models.Index(
                fields=["-finished_at", "-id"], condition=models.Q(finished_at__isnull=False), name="job_finished"
            ),
        ),
        migrations.AddIndex(
            "containerjob",
            models.Index(fields=["-priority", "id"], condition=models.Q(status=PENDING), name="job_queue"),
        ),
    ]
