"""The indexes of Solid Queue's tables: which are missing, and making them while the queue goes on.

Solid Queue's tables are a contract that nothing else here alters. An index that the operator asks for is the one
exception: it changes no row and no meaning.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, inspect, text
from sqlalchemy.engine import Inspector

from solidjq.database import tables as database_tables
from solidjq.database.transactions import Database
from solidjq.errors import ConflictError


class Wanted(NamedTuple):
    """An index that a table should have, under this name unless another index has taken it."""

    name: str
    table: str
    columns: tuple[str, ...]
    unique: bool = False

    def __str__(self) -> str:
        return f"{self.table} ({', '.join(self.columns)})"


def _declared(table: Table) -> Iterator[Wanted]:
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        yield Wanted(str(index.name), table.name, tuple(column.name for column in index.columns), bool(index.unique))


def contract() -> tuple[Wanted, ...]:
    """Return what Solid Queue's own schema has: its polls, its dispatcher and all that this program asks rest on it."""
    return tuple(wanted for table in database_tables.solid_queue.sorted_tables for wanted in _declared(table))


def ours() -> tuple[Wanted, ...]:
    """Return what Solid Queue has no use for, and we have: failures of a time (incidents, failed diff, --since)."""
    failed = database_tables.failed
    return (Wanted("jq_failed_executions_on_created_at", failed.name, (failed.c.created_at.name,)),)


def missing(connection: Connection, wanted: Sequence[Wanted] | None = None) -> list[Wanted]:
    """Return those that no index of the database can stand in for, whatever it is called. Missing tables are left out.

    A longer index serves for a shorter one with the same first columns; where values must be unique, only an equal one.
    """
    wanted = contract() if wanted is None else wanted
    inspector = inspect(connection)
    invalid = invalid_indexes(connection)
    tables = set(inspector.get_table_names())
    present = {name: list(_present(inspector, name, invalid)) for name in {w.table for w in wanted} & tables}
    return [each for each in wanted if each.table in present and not any(_serves(i, each) for i in present[each.table])]


def _present(inspector: Inspector, table: str, invalid: set[str]) -> Iterator[tuple[list[Any], bool]]:
    """Return columns and uniqueness of what may serve: partial indexes, and those half made, do not."""
    yield inspector.get_pk_constraint(table)["constrained_columns"], True
    for constraint in inspector.get_unique_constraints(table):
        yield constraint["column_names"], True
    for index in inspector.get_indexes(table):
        options: Mapping[str, Any] = index.get("dialect_options", {})
        if index["name"] not in invalid and not any(key.endswith("_where") for key in options):
            yield index["column_names"], bool(index["unique"])


def _serves(present: tuple[list[Any], bool], wanted: Wanted) -> bool:
    columns, unique = present
    if wanted.unique:
        return unique and set(columns) == set(wanted.columns)
    return tuple(columns[: len(wanted.columns)]) == wanted.columns


def create_missing(database: Database) -> Iterator[Wanted]:
    """Make every index that is missing, one after the other; yield each once it is there.

    PostgreSQL makes them CONCURRENTLY and MySQL online: workers go on meanwhile. An attempt that was interrupted is
    taken away and made again. Raises ConflictError while another program is doing the same.
    """
    with database.outside_transactions() as connection, index_lock(connection):
        taken = _names(connection)
        for wanted in missing(connection, (*contract(), *ours())):
            name = wanted.name if wanted.name not in taken else f"jq_{wanted.name}"[: database_tables.LONGEST_NAME]
            create_index(connection, name, wanted.table, wanted.columns, unique=wanted.unique)
            yield wanted._replace(name=name)


def _names(connection: Connection) -> set[str]:
    """Return the names that may not be given again: indexes that are there and good."""
    inspector = inspect(connection)
    names = {str(index["name"]) for table in inspector.get_table_names() for index in inspector.get_indexes(table)}
    return names - invalid_indexes(connection)


def invalid_indexes(connection: Connection) -> set[str]:
    """Return the names of indexes that are there and serve nobody: PostgreSQL keeps those that it could not finish."""
    if connection.dialect.name != "postgresql":
        return set()
    unfinished = (
        "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE NOT indisvalid AND pg_table_is_visible(indrelid)"
    )
    return set(connection.scalars(text(unfinished)))


@contextmanager
def index_lock(connection: Connection) -> Iterator[None]:
    """Let one program make indexes. Raises ConflictError if another is at it: what looks unfinished is its work."""
    match connection.dialect.name:
        case "postgresql":
            take = "SELECT pg_try_advisory_lock(hashtext('solidjq.indexes'))"
            give = "SELECT pg_advisory_unlock(hashtext('solidjq.indexes'))"
        case "mysql":
            take = "SELECT GET_LOCK(CONCAT('solidjq.indexes.', DATABASE()), 0)"
            give = "SELECT RELEASE_LOCK(CONCAT('solidjq.indexes.', DATABASE()))"
        case _:  # it waits for the writer before it
            yield
            return
    if not connection.scalar(text(take)):
        raise ConflictError("another jq init --indexes is at work on this database; try again when it is done")
    try:
        yield
    finally:
        connection.execute(text(give))


def create_index(connection: Connection, name: str, table: str, columns: Sequence[str], *, unique: bool) -> None:
    """Make an index without stopping those who write. The connection must be outside of any transaction."""
    quote_name = connection.dialect.identifier_preparer.quote
    kind = "UNIQUE INDEX" if unique else "INDEX"
    what = f"{quote_name(name)} ON {quote_name(table)} ({', '.join(map(quote_name, columns))})"
    match connection.dialect.name:
        case "postgresql":
            connection.execute(text("SET statement_timeout = 0"))  # it takes as long as it takes
            try:
                connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {quote_name(name)}"))  # an unfinished one
                connection.execute(text(f"CREATE {kind} CONCURRENTLY {what}"))
            finally:
                connection.execute(text("RESET statement_timeout"))
        case "mysql":
            connection.execute(text(f"CREATE {kind} {what} ALGORITHM=INPLACE LOCK=NONE"))
        case _:
            connection.execute(text(f"CREATE {kind} IF NOT EXISTS {what}"))
