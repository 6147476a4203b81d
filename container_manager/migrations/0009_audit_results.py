from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("container_manager", "0008_keys_in_use")]

    operations = [
        migrations.AddField(
            "auditentry", "result", models.CharField(max_length=16, default="DONE", db_default="DONE")
        ),
        migrations.AddField(
            "auditentry", "detail", models.CharField(max_length=500, blank=True, default="", db_default="")
        ),
    ]
