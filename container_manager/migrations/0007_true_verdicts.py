from django.db import migrations, models

NONE = models.Value([], models.JSONField())


class Migration(migrations.Migration):
    dependencies = [("container_manager", "0006_required_capabilities")]

    operations = [
        migrations.AddField("containerjob", "failed_hosts", models.JSONField(db_default=NONE, default=list)),
        migrations.AddField("containerjob", "unfit_hosts", models.JSONField(db_default=NONE, default=list)),
        migrations.AddField("containerjob", "shm_size_mb", models.PositiveIntegerField(default=None, null=True)),
        migrations.AddField(
            "executorhost", "engine", models.CharField(blank=True, db_default="", default="", max_length=100)
        ),
        migrations.AddField(
            "executorhost", "engine_id", models.CharField(blank=True, db_default="", default="", max_length=32)
        ),
    ]
