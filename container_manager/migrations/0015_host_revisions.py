"""A revision of each host's row, which triggers change with every change of it: rows in memory are compared by it.

It is random, so that no state of an earlier backup or of a lost commit has the revision of another one. Rows that the
version before creates during an upgrade have 0 until their first change. As with the triggers of migration 0010, a later
migration that makes the table again must create this one again.
"""

from importlib import import_module

from django.db import migrations, models

import container_manager.models.hosts

AddColumn = import_module("container_manager.migrations.0011_who_and_why").AddColumn

HOST = "container_manager_executorhost"
NAME = f"{HOST}_revision"
CREATE = {
    "postgresql": f"""
        CREATE FUNCTION {NAME}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.revision := (random() * 9e18)::bigint; RETURN NEW; END $$;
        CREATE TRIGGER {NAME} BEFORE UPDATE ON {HOST} FOR EACH ROW EXECUTE FUNCTION {NAME}();""",
    "sqlite": f"""
        CREATE TRIGGER {NAME} AFTER UPDATE ON {HOST}
        BEGIN UPDATE {HOST} SET revision = random() WHERE id = NEW.id; END""",
}
DROP = {"postgresql": f"DROP FUNCTION {NAME}() CASCADE", "sqlite": f"DROP TRIGGER {NAME}"}


def create_triggers(apps, schema_editor):  # noqa: ARG001
    schema_editor.execute(CREATE[schema_editor.connection.vendor], params=None)
    schema_editor.execute(f"UPDATE {HOST} SET revision = revision", params=None)


def drop_triggers(apps, schema_editor):  # noqa: ARG001
    schema_editor.execute(DROP[schema_editor.connection.vendor], params=None)


class Migration(migrations.Migration):
    dependencies = [("container_manager", "0014_embedding")]

    operations = [
        AddColumn(
            "executorhost",
            "revision",
            models.BigIntegerField(default=container_manager.models.hosts.first_revision, db_default=0, editable=False),
        ),
        migrations.RunPython(create_triggers, drop_triggers),
    ]
