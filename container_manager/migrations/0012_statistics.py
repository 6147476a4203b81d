from django.db import migrations, models
from django.db.models import Max


def begin_now(apps, schema_editor):  # noqa: ARG001
    """Earlier events do not name the attempt that they are about, so they are not counted."""
    newest = apps.get_model("container_manager", "RoutingEvent").objects.aggregate(id=Max("pk"))["id"]
    apps.get_model("container_manager", "Installation").objects.update(counted_through=newest or 0)


def _counts(*names):
    return [(name, models.PositiveIntegerField(default=0)) for name in names]


class Migration(migrations.Migration):
    dependencies = [("container_manager", "0011_who_and_why")]

    operations = [
        migrations.AddField("installation", "counted_through", models.BigIntegerField(default=0, db_default=0)),
        migrations.CreateModel(
            "JobStatistics",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("seconds", models.PositiveIntegerField()),
                ("start", models.DateTimeField()),
                ("dimension", models.CharField(max_length=20)),
                ("label", models.CharField(max_length=100, blank=True, default="")),
                ("key", models.CharField(max_length=300, blank=True, default="")),
                *_counts("submitted", "refused", "started", "succeeded", "failed", "timed_out", "cancelled"),
                *[(name, models.JSONField(default=dict)) for name in ("failures", "queued", "launched", "ran")],
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("seconds", "dimension", "start", "label", "key"), name="one_row_per_time"
                    )
                ],
            },
        ),
        migrations.RunPython(begin_now, migrations.RunPython.noop),
    ]
