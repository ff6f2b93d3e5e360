"""Inserts of many rows, and of those only whose key is new, which each database spells differently."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ColumnElement, Connection, CursorResult, Dialect, Executable, Select, Table, select
from sqlalchemy.sql import expression
from sqlalchemy.types import TypeEngine

from solidjq.database.faults import duplicate_is_conflict, past_sqlalchemy
from solidjq.database.poolers import qualified

if TYPE_CHECKING:
    import psycopg


def insert_many(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, all with the same keys, in the driver's fastest way: COPY on PostgreSQL."""
    if connection.dialect.name != "postgresql":
        connection.execute(expression.insert(table), rows)
        return
    names = list(rows[0])
    writers = [_writer(table.c[name].type, connection.dialect) for name in names]
    prepare = connection.dialect.identifier_preparer
    columns = ", ".join(prepare.format_column(table.c[name]) for name in names)
    statement = f"COPY {qualified(connection, table.name)} ({columns}) FROM STDIN"
    driver = cast("psycopg.Connection", connection.connection.driver_connection)
    with past_sqlalchemy(connection, statement), driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row([write(value) for write, value in zip(writers, row.values(), strict=True)])


def _writer(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any]:
    """Return the function that converts values of this type for COPY."""
    bound = kind.bind_processor(dialect)
    if bound is None:
        return lambda value: value
    # As text, formatted once for all rows with the same time; the driver would format it for each row.
    return lru_cache(maxsize=8)(lambda value: None if value is None else str(bound(value)))


def insert_if_absent(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]] = (), **values: Any
) -> None:
    """Insert rows, but none whose unique key exists; existing rows do not change.

    Each of ``rows`` is completed by ``values``; without ``rows``, ``values`` are the one row.
    """
    statement = _insert_or_skip(connection, table, lambda insertion: insertion.values(**values))
    connection.execute(statement, rows or None)


def lacks(key: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that no row has ``value`` as ``key``, for few rows: each is looked up in the key's index.

    A NOT EXISTS does the same, but MariaDB may read all keys of the table first, in each statement anew.
    """
    return select(key).where(key == value).limit(1).scalar_subquery().is_(None)


def insert_new(connection: Connection, table: Table, names: Sequence[str], rows: Select[Any]) -> None:
    """Insert the rows of a query that has a WHERE, but none whose unique key exists; existing rows do not change.

    Raises ConflictError on MySQL if another transaction inserts such a row at this moment.
    """
    if connection.dialect.name != "mysql":
        connection.execute(_insert_or_skip(connection, table, lambda insertion: insertion.from_select(names, rows)))
        return
    # ON DUPLICATE KEY UPDATE takes the right to UPDATE every column, and who counts crashes must not rewrite them.
    (key,) = table.primary_key
    selected = dict(zip(names, rows.selected_columns, strict=True))[key.name]
    with duplicate_is_conflict(f"another program inserted the same rows into {table.name} at this moment"):
        connection.execute(expression.insert(table).from_select(list(names), rows.where(lacks(key, selected))))


def _insert_or_skip(connection: Connection, table: Table, fill: Callable[[Any], Any]) -> Executable:
    """Return the INSERT that ``fill`` completes, which skips rows whose unique key exists."""
    match connection.dialect.name:
        case "postgresql":
            from sqlalchemy.dialects import postgresql  # noqa: PLC0415

            statement: Executable = fill(postgresql.insert(table)).on_conflict_do_nothing()
        case "mysql":
            from sqlalchemy.dialects import mysql  # noqa: PLC0415

            # Not INSERT IGNORE, which silently truncates a text that is too long for its column.
            key = {column.name: column for column in table.primary_key}
            statement = fill(mysql.insert(table)).on_duplicate_key_update(key)
        case _:
            from sqlalchemy.dialects import sqlite  # noqa: PLC0415

            statement = fill(sqlite.insert(table)).on_conflict_do_nothing()
    return statement


def inserted_id(result: CursorResult[Any]) -> int:
    """Return the id of the one row that was inserted."""
    (number,) = result.inserted_primary_key or (None,)
    if number is None:
        raise AssertionError("the database gave the row no id")
    return int(number)
