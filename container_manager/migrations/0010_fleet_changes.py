"""The change feed of the fleet view: triggers record how each statement changes what routing reads of hosts.

On SQLite, Django drops the triggers of a table that it makes again for another change of its columns: a later migration
that does so must create them again.
"""

from django.db import migrations, models

JOB, HOST, CHANGE = (f"container_manager_{name}" for name in ("containerjob", "executorhost", "fleetchange"))
ACTIVE = "status IN ('launching', 'routed', 'running')"
SIZE = "1, COALESCE(memory_limit, 0), COALESCE(cpu_limit, 0)"
FREED = "-1, -COALESCE(memory_limit, 0), -COALESCE(cpu_limit, 0)"
READ = (
    "name", "executor_type", "region", "labels", "routing_weight", "only_preferred", "max_concurrent_jobs",
    "max_memory_mb", "reported_memory_mb", "max_cpu_cores", "reported_cpu_cores", "is_active", "is_draining",
    "health_status", "ejected_until", "cooldown_until", "grants",
)  # fmt: skip
"""What routing reads of a host's own row."""


def _used(rows, size):
    return f"SELECT host_id, {size}, FALSE FROM {rows} WHERE {ACTIVE} AND host_id IS NOT NULL"


def _reserved(rows):
    return (
        f"SELECT reserved_host_id, 0, 0, 0, TRUE FROM {rows} WHERE status = 'pending' AND reserved_host_id IS NOT NULL"
    )


def _record(*parts):
    return f"""
        INSERT INTO {CHANGE} (txid, at, host_id, jobs, memory, cpu, host_changed)
        SELECT txid_current(), clock_timestamp(), host_id, SUM(jobs), SUM(memory), SUM(cpu), bool_or(changed)
        FROM ({" UNION ALL ".join(parts)}) AS parts (host_id, jobs, memory, cpu, changed) GROUP BY host_id
        HAVING SUM(jobs) <> 0 OR SUM(memory) <> 0 OR SUM(cpu) <> 0 OR bool_or(changed);"""


def _on_postgresql(table, operation, *parts):
    name = f"{table}_{operation.lower()}_fleet"
    rows = {"INSERT": "NEW TABLE AS new_rows", "DELETE": "OLD TABLE AS old_rows"}
    rows["UPDATE"] = f"{rows['DELETE']} {rows['INSERT']}"
    return f"""
        CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {_record(*parts)} RETURN NULL; END $$;
        CREATE TRIGGER {name} AFTER {operation} ON {table} REFERENCING {rows[operation]}
            FOR EACH STATEMENT EXECUTE FUNCTION {name}();"""


def _postgresql():
    was, now = ", ".join(f"o.{name}" for name in READ), ", ".join(f"n.{name}" for name in READ)
    changed = f"SELECT n.id, 0, 0, 0, TRUE FROM new_rows n JOIN old_rows o USING (id) WHERE ({now}) IS DISTINCT FROM ({was})"
    new, old = [_used("new_rows", SIZE), _reserved("new_rows")], [_used("old_rows", FREED), _reserved("old_rows")]
    return [
        _on_postgresql(JOB, "INSERT", *new),
        _on_postgresql(JOB, "UPDATE", *new, *old),
        _on_postgresql(JOB, "DELETE", *old),
        _on_postgresql(HOST, "INSERT", "SELECT id, 0, 0, 0, TRUE FROM new_rows"),
        _on_postgresql(HOST, "UPDATE", changed),
        _on_postgresql(HOST, "DELETE", "SELECT id, 0, 0, 0, TRUE FROM old_rows"),
    ]


def _on_sqlite(table, name, event, *changes):
    statements = "".join(
        f"""INSERT INTO {CHANGE} (txid, at, host_id, jobs, memory, cpu, host_changed)
        SELECT random(), CURRENT_TIMESTAMP, {host}, {size}, {changed} WHERE {condition};"""
        for host, size, changed, condition in changes
    )
    return f"CREATE TRIGGER {table}_{name}_fleet AFTER {event} BEGIN {statements} END"


def _sqlite():
    def of(row, size):
        for name in ("memory_limit", "cpu_limit"):
            size = size.replace(name, f"{row}.{name}")
        return [
            (f"{row}.host_id", size, "FALSE", f"{row}.{ACTIVE} AND {row}.host_id IS NOT NULL"),
            (f"{row}.reserved_host_id", "0, 0, 0", "TRUE",
             f"{row}.status = 'pending' AND {row}.reserved_host_id IS NOT NULL"),
        ]  # fmt: skip

    columns = ("status", "host_id", "memory_limit", "cpu_limit", "reserved_host_id", "priority")
    differs = " OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in READ)
    host = [("0, 0, 0", "TRUE", "TRUE")]
    return [
        _on_sqlite(JOB, "insert", f"INSERT ON {JOB}", *of("NEW", SIZE)),
        _on_sqlite(JOB, "update", f"UPDATE OF {', '.join(columns)} ON {JOB}", *of("OLD", FREED), *of("NEW", SIZE)),
        _on_sqlite(JOB, "delete", f"DELETE ON {JOB}", *of("OLD", FREED)),
        _on_sqlite(HOST, "insert", f"INSERT ON {HOST}", ("NEW.id", *host[0])),
        _on_sqlite(HOST, "update", f"UPDATE ON {HOST} WHEN {differs}", ("NEW.id", *host[0])),
        _on_sqlite(HOST, "delete", f"DELETE ON {HOST}", ("OLD.id", *host[0])),
    ]


def create_triggers(apps, schema_editor):  # noqa: ARG001
    for statement in _postgresql() if schema_editor.connection.vendor == "postgresql" else _sqlite():
        schema_editor.execute(statement, params=None)


def drop_triggers(apps, schema_editor):  # noqa: ARG001
    drop = "DROP FUNCTION {}() CASCADE" if schema_editor.connection.vendor == "postgresql" else "DROP TRIGGER {}"
    for table in (JOB, HOST):
        for operation in ("insert", "update", "delete"):
            schema_editor.execute(drop.format(f"{table}_{operation}_fleet"), params=None)


class Migration(migrations.Migration):
    dependencies = [("container_manager", "0009_audit_results")]

    operations = [
        migrations.CreateModel(
            "FleetChange",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("txid", models.BigIntegerField(db_index=True)),
                ("at", models.DateTimeField()),
                ("host_id", models.BigIntegerField()),
                ("jobs", models.BigIntegerField()),
                ("memory", models.BigIntegerField()),
                ("cpu", models.BigIntegerField()),
                ("host_changed", models.BooleanField()),
            ],
        ),
        migrations.RunPython(create_triggers, drop_triggers),
        migrations.AddField("routingevaluation", "key_id", models.BigIntegerField(null=True, default=None)),
        migrations.AddIndex(
            "routingevaluation",
            models.Index(fields=["key_id"], condition=models.Q(key_id__isnull=False), name="evaluation_key"),
        ),
    ]
