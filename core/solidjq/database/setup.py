"""Setup (``jq init``): creates Solid Queue's tables if missing, creates our ``jq_`` tables and migrates them."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, MetaData, Table, func, inspect, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateColumn, CreateTable

from solidjq.database import answers, engines, faults, grants, owners, statements, tables, text_columns, times
from solidjq.database.engines import SCHEMA_LOCK_TIMEOUT
from solidjq.database.poolers import qualified, schema_of
from solidjq.database.transactions import Database
from solidjq.errors import AccessDeniedError, ConflictError, DatabaseError, UsageError


class Migration(NamedTuple):
    """One numbered change of the ``jq_`` tables, applied once to a database with an earlier version of them."""

    version: int
    name: str
    apply: Callable[[Connection], None]


def _nothing(_connection: Connection) -> None:
    """Do nothing: a fresh ``jq init`` creates version 1."""


def _add_deaths(connection: Connection) -> None:
    """Add the columns that tie crashes to deaths; the table of deaths is created with all missing tables."""
    _add_columns(connection, tables.crashes.c.death_id, tables.crashes.c.started_at, tables.crashes.c.growth)


def _add_more(connection: Connection) -> None:
    """Add the column for those columns of a discarded job that Solid Queue 1.0 lacks."""
    _add_columns(connection, tables.failures.c.more)


def _add_chain(connection: Connection) -> None:
    """Add the columns that say more of who acted, and when that ended; the chain is created with all missing tables."""
    _add_columns(
        connection,
        tables.operations.c.database_role,
        tables.operations.c.ci_job,
        tables.operations.c.ended_at,
    )


def _add_progress(connection: Connection) -> None:
    """Add the columns for where a long job stood at its death. What was counted before has none: it always counts."""
    _add_columns(connection, tables.crashes.c.progress, tables.crashes.c.saved_at)


def _add_columns(connection: Connection, *columns: Column[Any]) -> None:
    for column in columns:
        table, schema = column.table.name, schema_of(connection)
        if not inspect(connection).has_table(table, schema):  # after an interrupted init; it is created later, complete
            continue
        # MySQL keeps the columns that an interrupted init added.
        if column.name not in {present["name"] for present in inspect(connection).get_columns(table, schema)}:
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {qualified(connection, table)} ADD COLUMN {definition}")


# A fresh database gets the tables of tables.py and the stamp of every version; an older one gets what it lacks.
MIGRATIONS = (
    Migration(1, "operations, archived failures, crashes", _nothing),
    Migration(2, "deaths", _add_deaths),
    Migration(3, "all columns of a discarded job", _add_more),
    Migration(4, "chain of operations", _add_chain),
    Migration(5, "texts of every length and language", text_columns.bring_up_to_date),
    Migration(6, "where long jobs stood at their deaths", _add_progress),
)


class InitReport(NamedTuple):
    """What ``jq init`` did."""

    created: list[str]  # tables
    migrated: list[str]  # migrations, as 'version name'


def initialize(database: Database) -> InitReport:
    """Create every table that is missing, with its indexes, and migrate the ``jq_`` tables.

    Existing Solid Queue tables are never altered. It is idempotent, and safe when two programs run it at once.

    Raises AccessDeniedError, which names the right to ask for, if this user may not create tables. Raises RefusedError
    if an untrusted role owns an object under one of our names: it is not adopted.
    """
    database.require_writable()
    try:
        if database.url.get_backend_name() == "sqlite":
            engines.create_sqlite_file(database.url)
        return database.transact(_initialize)
    except DatabaseError as error:
        if refusal := _refusal(database, error):
            raise AccessDeniedError(refusal) from error
        raise


def _refusal(database: Database, error: DatabaseError) -> str | None:
    """Return the text of which right this user lacks and how to get it; None for another error."""
    if database.url.get_backend_name() == "sqlite":
        path = grants.unwritable(database.url)
        return (
            f"{error}; ask for the right to write to {path}" if path and isinstance(error, AccessDeniedError) else None
        )
    cause = error.__cause__
    if not isinstance(cause, DBAPIError) or not grants.may_not_create(cause):
        return None
    try:
        role = _current_user(database)
        advice = grants.how_to_be_allowed(database.url, role)
    except UsageError:  # the name cannot be written into a GRANT
        return None
    if schema := _missing_schema(database):
        return (
            f'there is no schema "{schema}" in {database.place().name}; name another with --schema, or create it: '
            f'CREATE SCHEMA "{schema}"'
        )
    return f"{role} may not create tables in {database}: {faults.words_of(cause)}; {advice}"


def _missing_schema(database: Database) -> str | None:
    """Return the PostgreSQL schema of the URL if the database has no such schema."""
    if database.url.get_backend_name() != "postgresql":
        return None
    schema = grants.schema_of(database.url)
    with database.read() as connection:
        there = connection.scalar(text("SELECT 1 FROM pg_namespace WHERE nspname = :schema"), {"schema": schema})
    return None if there else schema


def _current_user(database: Database) -> str:
    """Return this user by the server, which may have chosen another role, or one of several accounts of that name."""
    try:
        with database.read() as connection:
            return str(connection.scalar(select(func.current_user())))
    except DatabaseError:  # not even a connection is allowed
        return database.url.username or ""


def _initialize(connection: Connection) -> InitReport:
    with schema_lock(connection), answers.without_limit(connection):
        owners.require_own(connection)
        return _bring_up_to_date(connection)


def _bring_up_to_date(connection: Connection) -> InitReport:
    existing = set(inspect(connection).get_table_names(schema_of(connection)))
    created = _create_missing(connection, tables.solid_queue, existing)
    fresh = tables.schema_migrations.name not in existing
    if fresh:
        created += _create_missing(connection, tables.jq, existing)
    done = set(connection.scalars(select(tables.schema_migrations.c.version)))
    pending = [migration for migration in MIGRATIONS if migration.version not in done]
    for migration in pending:
        if not fresh:
            migration.apply(connection)
        connection.execute(
            tables.schema_migrations.insert().values(
                version=migration.version, name=migration.name, applied_at=times.utcnow()
            )
        )
    if not fresh:
        # Last: a program that finds the youngest table assumes that the columns that belong to it exist.
        created += _create_missing(connection, tables.jq, existing)
    _go_on_counting(connection, created)
    _create_missing_indexes(connection, existing)
    return InitReport(created, [] if fresh else [f"{m.version} {m.name}" for m in pending])


def _create_missing(connection: Connection, metadata: MetaData, existing: set[str]) -> list[str]:
    missing: list[Table] = [table for table in metadata.sorted_tables if table.name not in existing]
    if connection.dialect.name == "mysql":
        for table in missing:
            connection.execute(_CreateWhole(table, text_columns.table_setting(connection)))
    else:  # in one transaction
        metadata.create_all(connection, tables=missing, checkfirst=False)
    return [table.name for table in missing]


def _go_on_counting(connection: Connection, created: Collection[str]) -> None:
    """Let the ids of a table of ours that had been dropped begin above those that the other tables refer to.

    Else an undo of a new operation would also restore what an operation of the same id had moved before.
    """
    references = {
        tables.operations: (
            tables.failures.c.operation_id,
            tables.failures.c.restored_by,
            tables.chain.c.operation_id,
        ),
        tables.deaths: (tables.crashes.c.death_id,),
    }
    for table, columns in references.items():
        if table.name in created:
            last = max(connection.scalar(select(func.max(column))) or 0 for column in columns)
            if last:
                statements.begin_ids_above(connection, table, last)


class _CreateWhole(CreateTable):
    """CREATE TABLE with the indexes inside: MySQL commits each statement, and no table is ever there without them."""

    inherit_cache = False

    def __init__(self, table: Table, setting: str) -> None:
        super().__init__(table)
        self.setting = setting


@compiles(_CreateWhole, "mysql")
def _create_whole(element: _CreateWhole, compiler: Any, **_: Any) -> str:
    quote_name = compiler.preparer.quote
    keys = [
        f"{'UNIQUE ' if index.unique else ''}KEY {quote_name(str(index.name))} "
        f"({', '.join(quote_name(column.name) for column in index.columns)})"
        for index in sorted(element.element.indexes, key=lambda index: str(index.name))
    ]
    columns, end, settings = compiler.visit_create_table(element).rpartition("\n)")
    return str(",\n\t".join([columns, *keys]) + end + settings.rstrip() + f" {element.setting}\n\n")


def _create_missing_indexes(connection: Connection, existing: set[str]) -> None:
    """Create the indexes that our tables lack: on MySQL, earlier versions made them in statements of their own."""
    for table in tables.jq.sorted_tables:
        if table.name in existing:
            names = {index["name"] for index in inspect(connection).get_indexes(table.name, schema_of(connection))}
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                if index.name not in names:
                    index.create(connection)


@contextmanager
def schema_lock(connection: Connection) -> Iterator[None]:
    """Hold the lock that lets one ``jq init`` run at a time. Raises ConflictError if another holds it for too long."""
    match connection.dialect.name:
        case "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('solidjq.init'))"))
            yield
        case "mysql":  # CREATE TABLE ends the transaction and its locks, so this lock is the session's
            name = "CONCAT('solidjq.init.', DATABASE())"
            if not connection.scalar(text(f"SELECT GET_LOCK({name}, {SCHEMA_LOCK_TIMEOUT})")):
                raise ConflictError("another jq init is at work on this database; try again when it is done")
            connection.execute(text("SET SESSION default_storage_engine = InnoDB"))  # the engine with transactions
            try:
                yield
                connection.execute(text("COMMIT"))  # so that the next jq init sees it once it has the lock
            finally:
                connection.execute(text(f"DO RELEASE_LOCK({name})"))
        case _:  # BEGIN IMMEDIATE has taken the lock
            yield
