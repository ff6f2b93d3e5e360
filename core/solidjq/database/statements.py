"""What a database returns of a write, and whole statements that each database spells differently."""

from collections.abc import Iterator
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, Table, func, select, text

from solidjq.database.poolers import qualified


class WriteStyle(Enum):
    """What a database returns of the rows that a statement changes: how many statements a move between tables takes."""

    CHAINED = "PostgreSQL"  # to the same statement: WITH gone AS (DELETE ... RETURNING ...) INSERT ...
    RETURNING = "SQLite"  # to the program
    SILENT = "MySQL, MariaDB"  # nothing: rows are locked and read first. MariaDB's UPDATE has no RETURNING


def write_style(connection: Connection | Engine) -> WriteStyle:
    """Return what this database returns of the rows that a statement changes."""
    if writes_in_with(connection):
        return WriteStyle.CHAINED
    returns = connection.dialect.update_returning and connection.dialect.insert_returning
    return WriteStyle.RETURNING if returns else WriteStyle.SILENT


def writes_in_with(connection: Connection | Engine) -> bool:
    """Whether one statement can change several tables: WITH gone AS (DELETE ... RETURNING ...) INSERT ..."""
    return connection.dialect.name == "postgresql"


STREAMED = 2000  # rows that a streamed query fetches at a time


def streamed(connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
    """Yield the rows of a query without holding them all: the server keeps them until they are fetched.

    Fetch all of them before the next statement on this connection, which must be in a transaction.
    """
    yield from connection.execute(query.execution_options(yield_per=STREAMED))


def compares_exactly(connection: Connection) -> bool:
    """Whether texts are equal only if identical; MySQL's usual collations ignore case and accents."""
    return connection.dialect.name != "mysql"


def distinct_values(connection: Connection, column: ColumnElement[str]) -> list[str]:
    """Return the distinct values of a column that leads an index, reading a few entries a value instead of all rows."""
    if connection.dialect.name == "mysql":  # its own optimizer does that
        return list(connection.scalars(select(column).distinct().order_by(column)))
    return list(connection.scalars(distinct_by_index(column)))


def distinct_by_index(column: ColumnElement[str]) -> Select[tuple[str]]:
    """Select the distinct values of a column that leads an index, for PostgreSQL and SQLite.

    From each value, the index leads to the next one: a few entries are read a value.
    """
    values = select(func.min(column).label("value")).cte("distinct_values", recursive=True)
    following = select(func.min(column)).where(column > values.c.value).scalar_subquery()
    values = values.union_all(select(following).where(values.c.value.is_not(None)))
    return select(values.c.value).where(values.c.value.is_not(None)).order_by(values.c.value)


def estimated_rows(connection: Connection, table: Table) -> int:
    """Return about how many rows a table has, by its server's statistics; SQLite has none, and counts by an index."""
    match connection.dialect.name:
        case "postgresql":
            query = text("SELECT reltuples FROM pg_class WHERE oid = CAST(:name AS regclass)")
            name = qualified(connection, table.name)
        case "mysql":
            query = text(
                "SELECT table_rows FROM information_schema.tables "
                "WHERE table_schema = DATABASE() AND table_name = :name"
            )
            name = table.name
        case _:
            return connection.scalar(select(func.count()).select_from(table)) or 0
    return max(0, int(connection.scalar(query, {"name": name}) or 0))


def begin_ids_above(connection: Connection, table: Table, last: int) -> None:
    """Let the ids of an empty table begin above ``last``."""
    name = qualified(connection, table.name)
    match connection.dialect.name:
        case "postgresql":
            sequence = "pg_get_serial_sequence(:name, 'id')"
            connection.execute(text(f"SELECT setval({sequence}, :last)"), {"name": name, "last": last})
        case "mysql":
            connection.execute(text(f"ALTER TABLE {name} AUTO_INCREMENT = {last + 1}"))
        case _:
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
            numbers = {"name": table.name, "last": last}
            connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), numbers)
