"""Indexes of Solid Queue's tables: finds those that are missing, and creates them while the queue is in use.

Solid Queue's tables are a contract that nothing else alters. An index that the operator requests is the one exception:
it changes no row and no meaning.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, inspect, text
from sqlalchemy.engine import Inspector

from solidjq.database import answers
from solidjq.database import tables as database_tables
from solidjq.database.poolers import is_shared, qualified, schema_of
from solidjq.database.transactions import Database
from solidjq.errors import ConflictError


class RequiredIndex(NamedTuple):
    """An index that a table should have, under this name unless another index has it."""

    name: str
    table: str
    columns: tuple[str, ...]
    unique: bool = False

    def __str__(self) -> str:
        return f"{self.table} ({', '.join(self.columns)})"


def _declared(table: Table) -> Iterator[RequiredIndex]:
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        yield RequiredIndex(
            str(index.name), table.name, tuple(column.name for column in index.columns), bool(index.unique)
        )


def contract() -> tuple[RequiredIndex, ...]:
    """Return the indexes of Solid Queue's own schema, which its workers and dispatcher and this program rely on."""
    return tuple(wanted for table in database_tables.solid_queue.sorted_tables for wanted in _declared(table))


def ours() -> tuple[RequiredIndex, ...]:
    """Return the indexes that only this program uses: failures by time, for incidents, failed diff and --since."""
    failed = database_tables.failed
    return (RequiredIndex("jq_failed_executions_on_created_at", failed.name, (failed.c.created_at.name,)),)


def missing(connection: Connection, wanted: Sequence[RequiredIndex] | None = None) -> list[RequiredIndex]:
    """Return the wanted indexes, of tables that exist, that no index of the database serves, whatever its name.

    A longer index serves for a shorter one with the same first columns; a unique index needs one of the same columns.
    An index of columns that an older version of Solid Queue lacks is not missing: ``doctor tables`` names the columns.
    """
    wanted = contract() if wanted is None else wanted
    inspector = inspect(connection)
    invalid = invalid_indexes(connection)
    schema = schema_of(connection)
    tables = set(inspector.get_table_names(schema))
    present = {name: list(_present(inspector, name, schema, invalid)) for name in {w.table for w in wanted} & tables}
    unserved = [
        index
        for index in wanted
        if index.table in present and not any(_serves(other, index) for other in present[index.table])
    ]
    columns = {
        table: {column["name"] for column in inspector.get_columns(table, schema)}
        for table in {index.table for index in unserved}
    }
    return [index for index in unserved if columns[index.table].issuperset(index.columns)]


def _present(
    inspector: Inspector, table: str, schema: str | None, invalid: set[str]
) -> Iterator[tuple[list[Any], bool]]:
    """Yield the columns and uniqueness of each key and index, but not of partial and of unfinished indexes."""
    yield inspector.get_pk_constraint(table, schema)["constrained_columns"], True
    for constraint in inspector.get_unique_constraints(table, schema):
        yield constraint["column_names"], True
    for index in inspector.get_indexes(table, schema):
        options: Mapping[str, Any] = index.get("dialect_options", {})
        if index["name"] not in invalid and not any(key.endswith("_where") for key in options):
            yield index["column_names"], bool(index["unique"])


def _serves(present: tuple[list[Any], bool], wanted: RequiredIndex) -> bool:
    columns, unique = present
    if wanted.unique:
        return unique and set(columns) == set(wanted.columns)
    return tuple(columns[: len(wanted.columns)]) == wanted.columns


def create_missing(database: Database) -> Iterator[RequiredIndex]:
    """Create every missing index, one after the other; yield each when it exists.

    PostgreSQL creates them CONCURRENTLY and MySQL online: workers go on meanwhile. What an interrupted attempt left is
    dropped and created again. Raises ConflictError while another program creates indexes.
    """
    with index_lock(database), database.outside_transactions() as connection, answers.without_limit(connection):
        taken = _names(connection)
        for wanted in missing(connection, (*contract(), *ours())):
            name = wanted.name if wanted.name not in taken else f"jq_{wanted.name}"[: database_tables.LONGEST_NAME]
            create_index(connection, name, wanted.table, wanted.columns, unique=wanted.unique)
            yield wanted._replace(name=name)


def _names(connection: Connection) -> set[str]:
    """Return the names of the valid indexes, which no other index can have."""
    inspector, schema = inspect(connection), schema_of(connection)
    tables = inspector.get_table_names(schema)
    names = {str(index["name"]) for table in tables for index in inspector.get_indexes(table, schema)}
    return names - invalid_indexes(connection)


def invalid_indexes(connection: Connection) -> set[str]:
    """Return the names of the indexes that PostgreSQL could not finish: it keeps them, and no query uses them."""
    if connection.dialect.name != "postgresql":
        return set()
    unfinished = (
        "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE NOT indisvalid AND CASE WHEN CAST(:schema AS text) IS NULL THEN pg_table_is_visible(indrelid) "
        "ELSE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema) END"
    )
    return set(connection.scalars(text(unfinished), {"schema": schema_of(connection)}))


@contextmanager
def index_lock(database: Database) -> Iterator[None]:
    """Hold the lock for creating indexes. Raises ConflictError if another program holds it and so creates indexes.

    It belongs to a connection of its own. On PostgreSQL that is a transaction, because a pooler may give the session to
    another client before the lock is released; it has no snapshot that CREATE INDEX CONCURRENTLY would wait for.
    """
    match database.url.get_backend_name():
        case "postgresql":
            acquire = "SELECT pg_try_advisory_xact_lock(hashtext('solidjq.indexes'))"
        case "mysql":
            acquire = "SELECT GET_LOCK(CONCAT('solidjq.indexes.', DATABASE()), 0)"
        case _:  # CREATE INDEX waits for other writers
            yield
            return
    with database.read() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        if not connection.scalar(text(acquire)):
            raise ConflictError("another jq init --indexes is at work on this database; try again when it is done")
        try:
            yield
        finally:
            if connection.dialect.name == "mysql":
                connection.execute(text("SELECT RELEASE_LOCK(CONCAT('solidjq.indexes.', DATABASE()))"))


def create_index(connection: Connection, name: str, table: str, columns: Sequence[str], *, unique: bool) -> None:
    """Create an index while other programs write. The connection must be outside of any transaction."""
    quote_name = connection.dialect.identifier_preparer.quote
    kind = "UNIQUE INDEX" if unique else "INDEX"
    what = f"{quote_name(name)} ON {qualified(connection, table)} ({', '.join(map(quote_name, columns))})"
    match connection.dialect.name:
        case "postgresql":
            ours = not is_shared(connection)  # else the setting would stay behind for another client
            if ours:
                connection.execute(text("SET statement_timeout = 0"))  # a large table takes long
            try:
                unfinished = f"DROP INDEX CONCURRENTLY IF EXISTS {qualified(connection, name)}"
                connection.execute(text(unfinished))
                connection.execute(text(f"CREATE {kind} CONCURRENTLY {what}"))
            finally:
                if ours:
                    connection.execute(text("RESET statement_timeout"))
        case "mysql":
            connection.execute(text(f"CREATE {kind} {what} ALGORITHM=INPLACE LOCK=NONE"))
        case _:
            connection.execute(text(f"CREATE {kind} IF NOT EXISTS {what}"))
