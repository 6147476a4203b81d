"""Many rows in one statement, by what each database does fastest."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from operator import attrgetter
from typing import Any

import orjson
from django.db import connection, models

from container_manager.fields import CoresField, EncryptedJSONField

FEW = 20
"""Up to so many rows, PostgreSQL takes them sooner in the statement than by COPY."""


def new_ids(model: type[models.Model], count: int) -> list[int]:
    """Ids for rows that are about to be inserted in this transaction, in ascending order."""
    table = model._meta.db_table  # noqa: SLF001 - Django's documented interface
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT nextval(%s::regclass) FROM generate_series(1, %s)", [f"{table}_id_seq", count])
            return [row[0] for row in cursor.fetchall()]
        # Nobody else writes before this transaction ends.
        cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
        last = (cursor.fetchone() or (0,))[0]
        return list(range(last + 1, last + 1 + count))


def insert(model: type[models.Model], columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows of values as the database keeps them."""
    if not rows:
        return
    into = f'"{model._meta.db_table}" ({", ".join(columns)})'  # noqa: SLF001
    places = f"({', '.join(['%s'] * len(columns))})"
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            cursor.executemany(f"INSERT INTO {into} VALUES {places}", rows)  # noqa: S608 - names of our own columns
        elif len(rows) <= FEW:
            values = [value for row in rows for value in row]
            cursor.execute(f"INSERT INTO {into} VALUES {', '.join([places] * len(rows))}", values)  # noqa: S608
        else:
            with cursor.copy(f"COPY {into} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)


def insert_objects(objects: Sequence[models.Model]) -> None:
    """Insert model instances that have their ids."""
    if objects:
        columns, values, prepared = _form(type(objects[0]))
        rows = [list(values(entry)) for entry in objects]
        for at, prepare in prepared:
            for row in rows:
                row[at] = prepare(row[at])
        insert(type(objects[0]), columns, rows)


def update(model: type[models.Model], fixed: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> None:
    """Update rows given as (id, value, ...): `columns` are the names and SQL types of the values.

    `fixed` is SQL that sets other columns, the same in all rows.
    """
    if not rows:
        return
    table = model._meta.db_table  # noqa: SLF001
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            values = ", ".join(f"{name} = new.{name}" for name in columns)
            arrays = ", ".join(f"%s::{kind}[]" for kind in ("bigint", *columns.values()))
            cursor.execute(
                f"UPDATE {table} SET {fixed}, {values} FROM unnest({arrays}) AS new(id, {', '.join(columns)}) "  # noqa: S608
                f"WHERE {table}.id = new.id",
                [list(column) for column in zip(*rows, strict=True)],
            )
        else:
            values = ", ".join(f"{name} = %s" for name in columns)
            cursor.executemany(
                f"UPDATE {table} SET {fixed}, {values} WHERE id = %s",  # noqa: S608
                [(*row[1:], row[0]) for row in rows],
            )


def as_json(value: Any) -> str:
    """JSON as a JSON column takes it."""
    return orjson.dumps(value).decode()


def as_moment(value: Any) -> Any:
    """A time as its column takes it."""
    return connection.ops.adapt_datetimefield_value(value)


@cache
def _form(
    model: type[models.Model],
) -> tuple[list[str], Callable[[Any], Iterable[Any]], list[tuple[int, Callable[[Any], Any]]]]:
    """A model's columns, how to take their values from an instance, and which of them need preparing."""
    fields = model._meta.concrete_fields  # noqa: SLF001
    prepared: list[tuple[int, Callable[[Any], Any]]] = []
    for at, field in enumerate(fields):
        if isinstance(field, models.JSONField):
            prepared.append((at, as_json))
        elif isinstance(field, models.DateTimeField):
            prepared.append((at, as_moment))
        elif isinstance(field, models.CharField) and not field.null:
            # The driver would keep an enumeration's name instead of its value.
            prepared.append((at, str))
        elif isinstance(field, (EncryptedJSONField, CoresField)):
            prepared.append((at, partial(field.get_db_prep_save, connection=connection)))
    return [str(field.column) for field in fields], attrgetter(*[field.attname for field in fields]), prepared
