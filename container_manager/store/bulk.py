"""Many rows in one statement, by the fastest way of each database."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from operator import attrgetter
from typing import Any, NamedTuple

import orjson
from django.db import models
from django.db.models.expressions import RawSQL

from container_manager.database import connection
from container_manager.fields import CoresField, EncryptedJSONField

FEW = 20
"""Up to this many rows, an INSERT with values is faster than COPY on PostgreSQL."""


class Rows(NamedTuple):
    """Rows for one table: the column names, and values as the database stores them.

    `on_conflict`: an SQL clause for rows that exist already; without it they are an error.
    """

    model: type[models.Model]
    columns: Sequence[str]
    values: Sequence[Sequence[Any]]
    on_conflict: str = ""


Ids = Mapping[type[models.Model], Sequence[int]]
Query = tuple[str, Sequence[Any]]
"""SQL and its parameters."""


def together(*queries: Query) -> list[list[tuple[Any, ...]]]:
    """The rows of each query; on PostgreSQL from one round trip."""
    found = []
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            for query in queries:
                cursor.execute(*query)
                found.append(cursor.fetchall())
            return found
        cursor.execute("; ".join(sql for sql, _ in queries), [value for _, values in queries for value in values])
        for at in range(len(queries)):
            if at:
                cursor.nextset()
            found.append(cursor.fetchall())
    return found


def new_ids(
    counts: Mapping[type[models.Model], int],
    known: Mapping[type[models.Model], str] | None = None,
    at_hand: Ids | None = None,
) -> Ids:
    """Allocate ids for rows that this transaction is about to insert: `counts[model]` ids each, in ascending order.

    `known`: models with a digest; the result has the id of the row with that digest, if there is one, from the same
    round trip. `at_hand`: ids that this transaction has allocated before and not used.
    """
    taken = {model: ids for model, ids in (at_hand or {}).items() if counts.get(model, 0) <= len(ids)}
    left = {model: 0 if model in taken else count for model, count in counts.items()}
    query = ids_query(left, known)
    found = ids_of(left, known, *together(query)) if query[0] else {model: [] for model in left}
    return {**found, **{model: ids[: counts[model]] for model, ids in taken.items() if model in counts}}


def ids_query(counts: Mapping[type[models.Model], int], known: Mapping[type[models.Model], str] | None = None) -> Query:
    """The query that allocates ids; its rows are for `ids_of`."""
    parts: list[str] = []
    parameters: list[Any] = []
    for model, digest in (known or {}).items():
        parts.append(f"SELECT %s, id FROM {_table(model)} WHERE digest = %s")  # noqa: S608 - names of our own tables
        parameters += [_table(model), digest]
    for model, count in counts.items():
        if count and connection.vendor == "postgresql":
            parts.append(f"SELECT %s, nextval('{_table(model)}_id_seq') FROM generate_series(1, %s)")  # noqa: S608
            parameters += [_table(model), count]
        elif count:
            # No other connection writes before this transaction ends, so the next ids follow the last one.
            parts.append("SELECT %s, COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = %s")
            parameters += [_table(model), _table(model)]
    return " UNION ALL ".join(parts), parameters


def ids_of(
    counts: Mapping[type[models.Model], int],
    known: Mapping[type[models.Model], str] | None,
    rows: Sequence[tuple[Any, ...]],
) -> Ids:
    """The ids from the rows of `ids_query`, which had the same arguments."""
    ids: dict[str, list[int]] = {}
    for table, pk in rows:
        ids.setdefault(table, []).append(pk)
    found = {model: sorted(ids.get(_table(model), [])) for model in (*counts, *(known or ()))}
    for model, count in counts.items():
        if count and connection.vendor != "postgresql":
            found[model] = list(range(found[model][0] + 1, found[model][0] + 1 + count))
    return found


def _table(model: type[models.Model]) -> str:
    return str(model._meta.db_table)  # noqa: SLF001 - Django's documented interface


def insert(*tables: Rows, after: str = "") -> None:
    """Insert rows. `after` is SQL that is executed before the last table is written."""
    filled = [rows for rows in tables if rows.values]
    if after and any(len(rows.values) > FEW for rows in filled[:-1]):
        insert(*filled[:-1])
        filled = filled[-1:]
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            for model, columns, values, on_conflict in filled:
                places = ", ".join(["%s"] * len(columns))
                cursor.executemany(f"INSERT INTO {_into(model, columns)} VALUES ({places}) {on_conflict}", values)  # noqa: S608
            return
        # One round trip for all small inserts.
        statements = [after] if after else []
        parameters: list[Any] = []
        for model, columns, values, on_conflict in filled:
            # COPY knows no conflicts.
            if len(values) <= FEW or on_conflict:
                statements.append(f"{_insert_json(model, tuple(columns))} {on_conflict}")
                parameters.append(_rows_as_json(model, columns, values))
        if statements:
            cursor.execute("; ".join(statements), parameters)
        for model, columns, values, on_conflict in filled:
            if len(values) > FEW and not on_conflict:
                with cursor.copy(f"COPY {_into(model, columns)} FROM STDIN") as copy:
                    for row in values:
                        copy.write_row(row)


@cache
def _insert_json(model: type[models.Model], columns: Sequence[str]) -> str:
    # With a parameter for each value, psycopg would take the statement apart each time.
    listed = ", ".join(f'"{column}"' for column in columns)
    return (
        f"INSERT INTO {_into(model, columns)} "  # noqa: S608 - names of our own tables
        f"SELECT {listed} FROM json_populate_recordset(NULL::{_table(model)}, %s)"
    )


def _rows_as_json(model: type[models.Model], columns: Sequence[str], values: Sequence[Sequence[Any]]) -> str:
    as_they_are = _json_columns(model)
    rows = [
        {
            name: orjson.Fragment(value) if name in as_they_are and value is not None else value
            for name, value in zip(columns, row, strict=True)
        }
        for row in values
    ]
    return orjson.dumps(rows, default=_as_text).decode()


@cache
def _json_columns(model: type[models.Model]) -> frozenset[str]:
    fields = model._meta.concrete_fields  # noqa: SLF001
    return frozenset(str(field.column) for field in fields if isinstance(field, models.JSONField))


def _as_text(value: Any) -> str:
    """Bytes as PostgreSQL reads them, which Django may have wrapped for the driver."""
    value = getattr(value, "obj", value)
    if isinstance(value, (bytes, memoryview, bytearray)):
        return "\\x" + bytes(value).hex()
    raise TypeError(f"{type(value)} has no form in JSON")


def _into(model: type[models.Model], columns: Sequence[str]) -> str:
    quoted = ", ".join(f'"{column}"' for column in columns)
    return f'"{_table(model)}" ({quoted})'


def rows_of(model: type[models.Model], objects: Sequence[models.Model], left_out: frozenset[str] = frozenset()) -> Rows:
    """Rows from model instances that have their ids, without the columns in which the database's default is right."""
    columns, values, prepared = _form(model, left_out)
    rows = [list(values(entry)) for entry in objects]
    for at, prepare in prepared:
        for row in rows:
            row[at] = prepare(row[at])
    return Rows(model, columns, rows)


def update(
    model: type[models.Model], fixed: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]], where: str
) -> None:
    """Update rows given as (id, value, ...).

    Args:
        fixed: SQL that sets other columns to the same value in all rows, or "".
        columns: the names and SQL types of the values.
        where: an SQL condition that each row must meet.

    Raises:
        RuntimeError: a row does not meet the condition; the transaction must be rolled back.
    """
    if not rows:
        return
    table = _table(model)
    fixed = f"{fixed}, " if fixed else ""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            values = ", ".join(f"{name} = new.{name}" for name in columns)
            arrays = ", ".join(f"%s::{kind}[]" for kind in ("bigint", *columns.values()))
            cursor.execute(
                f"UPDATE {table} SET {fixed}{values} FROM unnest({arrays}) AS new(id, {', '.join(columns)}) "  # noqa: S608
                f"WHERE {table}.id = new.id AND {table}.{where}",
                [list(column) for column in zip(*rows, strict=True)],
            )
        else:
            values = ", ".join(f"{name} = %s" for name in columns)
            cursor.executemany(
                f"UPDATE {table} SET {fixed}{values} WHERE id = %s AND {where}",  # noqa: S608
                [(*row[1:], row[0]) for row in rows],
            )
        if cursor.rowcount != len(rows):
            raise RuntimeError(f"only {cursor.rowcount} of {len(rows)} rows of {table} met the condition {where}")


def id_in(column: str, ids: Iterable[int]) -> RawSQL:
    """A condition for many ids that takes a single parameter."""
    if connection.vendor == "postgresql":
        return RawSQL(f"{column} = ANY(%s)", [list(ids)], models.BooleanField())  # noqa: S611 - names of our own columns
    listed = f"{column} IN (SELECT value FROM json_each(%s))"  # noqa: S608
    return RawSQL(listed, [as_json(list(ids))], models.BooleanField())  # noqa: S611


def as_json(value: Any) -> str:
    """A value as a JSON column stores it."""
    return orjson.dumps(value).decode()


def as_moment(value: Any) -> Any:
    """A time as a timestamp column stores it."""
    return _moment_adapter()(value)


@cache
def _moment_adapter() -> Callable[[Any], Any]:
    """Kept, because finding this thread's connection takes several times as long as adapting a time."""
    adapt: Callable[[Any], Any] = connection.ops.adapt_datetimefield_value
    return adapt


@cache
def _form(
    model: type[models.Model], left_out: frozenset[str]
) -> tuple[list[str], Callable[[Any], Iterable[Any]], list[tuple[int, Callable[[Any], Any]]]]:
    """A model's columns, a getter of their values, and the indexes of values to convert, with their conversion."""
    fields = [field for field in model._meta.concrete_fields if field.column not in left_out]  # noqa: SLF001
    prepared: list[tuple[int, Callable[[Any], Any]]] = []
    for at, field in enumerate(fields):
        if isinstance(field, models.JSONField):
            prepared.append((at, as_json))
        elif isinstance(field, models.DateTimeField):
            if connection.vendor != "postgresql":
                prepared.append((at, as_moment))
        elif isinstance(field, models.CharField) and not field.null:
            # Psycopg would store an enumeration by its name instead of its value.
            prepared.append((at, str))
        elif isinstance(field, CoresField):
            prepared.append((at, field.get_prep_value))
        elif isinstance(field, EncryptedJSONField):
            prepared.append((at, partial(field.get_db_prep_save, connection=connection)))
    return [str(field.column) for field in fields], attrgetter(*[field.attname for field in fields]), prepared
