"""Make what is missing: Solid Queue's tables where there are none, and our own ``jq_`` tables, with migrations."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, MetaData, Table, func, inspect, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn

from solidjq.database import grants, statements, tables, urls
from solidjq.database.transactions import Database
from solidjq.errors import AccessDeniedError, DatabaseError, UsageError
from solidjq.text import mask_secrets, one_line

ENVIRONMENT = "JQ_DATABASE_URL"
PREFIX_ENVIRONMENT = "JQ_TABLE_PREFIX"


def open_database(
    url: str | URL | None = None,
    *,
    name: str = "jq",
    create: bool = True,
    namespace: str | None = None,
    table_prefix: str | None = None,
    read_only: bool = False,
) -> Database:
    """Open the database at ``url``, else the one that JQ_DATABASE_URL names, else the embedded queue.

    The embedded queue is made if it is not there, unless ``create`` is False. ``namespace`` is the PostgreSQL schema
    with the tables, ``table_prefix`` what the names of Solid Queue's begin with, for the whole process; else
    JQ_TABLE_PREFIX says it. Raises UsageError for a malformed URL or prefix.
    """
    tables.use_prefix(
        os.environ.get(PREFIX_ENVIRONMENT, tables.DEFAULT_PREFIX) if table_prefix is None else table_prefix
    )
    # An empty one is an error: a variable that was not filled must not lead to another queue.
    given = url if url is not None else os.environ.get(ENVIRONMENT)
    if given is None:
        path = urls.default_path()
        found = URL.create("sqlite", database=str(path))
        missing = create and not read_only and not path.exists()
    else:
        found = urls.parse_url(given) if isinstance(given, str) else given
        missing = False
    if namespace is not None:
        found = urls.with_schema(found, namespace)
    database = Database(found, name=name, read_only=read_only)
    if missing:
        initialize(database)
    return database


class Migration(NamedTuple):
    """One numbered change of the ``jq_`` tables, applied once to a database that has the tables before it."""

    version: int
    name: str
    apply: Callable[[Connection], None]


def _nothing(_connection: Connection) -> None:
    """Version 1 is what a fresh ``jq init`` makes."""


def _add_deaths(connection: Connection) -> None:
    """Tie crashes to deaths; the table of deaths itself is made with whatever else is missing."""
    _add_columns(connection, tables.crashes.c.death_id, tables.crashes.c.started_at, tables.crashes.c.growth)


def _add_more(connection: Connection) -> None:
    """Make room for the columns of a discarded job that Solid Queue 1.0 did not have."""
    _add_columns(connection, tables.failures.c.more)


def _add_columns(connection: Connection, *columns: Column[Any]) -> None:
    for column in columns:
        table = column.table.name
        if not inspect(connection).has_table(table):  # an interrupted init; it is made as it is now
            continue
        # MySQL keeps what an interrupted init has added.
        if column.name not in {each["name"] for each in inspect(connection).get_columns(table)}:
            written = CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {written}")


# A fresh database gets the tables as schema.py has them and every version's stamp; an older one gets what it lacks.
MIGRATIONS = (
    Migration(1, "operations, archived failures, crashes", _nothing),
    Migration(2, "deaths", _add_deaths),
    Migration(3, "all columns of a discarded job", _add_more),
)


class Initialized(NamedTuple):
    """What ``jq init`` did."""

    created: list[str]  # tables
    migrated: list[str]  # migrations, as 'version name'


def initialize(database: Database) -> Initialized:
    """Create every table that is missing, with its indexes, and bring the ``jq_`` tables up to date.

    Existing Solid Queue tables are left exactly as they are. Running it again, or twice at once, does no harm.

    Raises AccessDeniedError, which names the right to ask for, where this user may not create tables.
    """
    database.require_writable()
    try:
        if database.url.get_backend_name() == "sqlite":
            statements.create_sqlite_file(database.url)
        return database.transact(_initialize)
    except DatabaseError as error:
        if refusal := _refusal(database, error):
            raise AccessDeniedError(refusal) from error
        raise


def _refusal(database: Database, error: DatabaseError) -> str | None:
    """Say what this user lacks and how to get it; None if the error was about something else."""
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
    except UsageError:  # a name that no statement of ours can hold
        return None
    words = mask_secrets(one_line(str(cause.orig).partition("\n")[0]))  # below that PostgreSQL repeats our statement
    return f"{role} may not create tables in {database}: {words}; {advice}"


def _current_user(database: Database) -> str:
    """Ask the server who we are: it may have chosen the role, or the account of several with one name."""
    try:
        with database.read() as connection:
            return str(connection.scalar(select(func.current_user())))
    except DatabaseError:  # not even a connection is allowed
        return database.url.username or ""


def _initialize(connection: Connection) -> Initialized:
    with statements.schema_lock(connection):
        return _bring_up_to_date(connection)


def _bring_up_to_date(connection: Connection) -> Initialized:
    existing = set(inspect(connection).get_table_names())
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
                version=migration.version, name=migration.name, applied_at=statements.utcnow()
            )
        )
    if not fresh:
        # Last: whoever finds the youngest table may use all that belongs to it.
        created += _create_missing(connection, tables.jq, existing)
    _create_missing_indexes(connection, existing)
    return Initialized(created, [] if fresh else [f"{m.version} {m.name}" for m in pending])


def _create_missing(connection: Connection, metadata: MetaData, existing: set[str]) -> list[str]:
    missing: list[Table] = [table for table in metadata.sorted_tables if table.name not in existing]
    metadata.create_all(connection, tables=missing, checkfirst=False)
    return [table.name for table in missing]


def _create_missing_indexes(connection: Connection, existing: set[str]) -> None:
    """Complete our own tables: MySQL commits each CREATE, so an init that ended early may have left some without."""
    for table in tables.jq.sorted_tables:
        if table.name in existing:
            names = {index["name"] for index in inspect(connection).get_indexes(table.name)}
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                if index.name not in names:
                    index.create(connection)
