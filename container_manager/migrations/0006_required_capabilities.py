"""`beyond` becomes `required_capabilities` in Python. Its column keeps its name, so nothing changes in the database."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("container_manager", "0005_scale")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField("containerjob", "beyond", models.JSONField(db_column="beyond", default=list)),
                migrations.RenameField("containerjob", "beyond", "required_capabilities"),
            ]
        )
    ]
