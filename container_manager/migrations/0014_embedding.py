from importlib import import_module

from django.db import migrations, models

import container_manager.fields
import container_manager.models.hosts

AddColumn = import_module("container_manager.migrations.0011_who_and_why").AddColumn


class Migration(migrations.Migration):
    dependencies = [("container_manager", "0013_host_usage")]

    operations = [
        # Only the name of the function is in the state, so that packages with executors change no migration.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    "executorhost",
                    "executor_type",
                    models.CharField(max_length=20, choices=container_manager.models.hosts.executor_types),
                )
            ]
        ),
        AddColumn("installation", "signalled_through", models.BigIntegerField(null=True, default=None)),
        migrations.CreateModel(
            "OutboxEntry",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=64, unique=True)),
                ("actor", models.CharField(max_length=100)),
                ("job", container_manager.fields.EncryptedJSONField(default=dict, null=True)),
                ("fault", models.TextField(blank=True, default="")),
            ],
            options={"verbose_name_plural": "outbox entries"},
        ),
    ]
