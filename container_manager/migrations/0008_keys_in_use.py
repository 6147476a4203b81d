from django.db import migrations, models

NONE = models.Value([], models.JSONField())


class Migration(migrations.Migration):
    dependencies = [("container_manager", "0007_true_verdicts")]

    operations = [
        migrations.AddField("installation", "keys_in_use", models.JSONField(db_default=NONE, default=list)),
    ]
