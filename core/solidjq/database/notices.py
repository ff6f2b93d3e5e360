"""Word that jobs are ready, from those who enqueue to workers that wait: PostgreSQL's NOTIFY and LISTEN.

It only saves waiting. Workers poll all the same; so word that is lost, or that nobody sends, costs a polling interval
and no more. ``enqueue`` sends it; with the trigger of ``jq init --notify`` every program's ready rows do, Rails' too.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ColumnElement, Connection, func
from sqlalchemy.exc import DBAPIError

from solidjq.database.engines import SCHEMA_LOCK_TIMEOUT
from solidjq.database.tables import ready
from solidjq.database.transactions import Database
from solidjq.errors import UsageError

if TYPE_CHECKING:
    import psycopg


CHANNEL = "jq_ready"
TRIGGER = "jq_notify"


def send(connection: Connection) -> None:
    """Tell, once this transaction is committed, that jobs are ready."""
    notify(connection, CHANNEL)


def sending() -> ColumnElement[Any]:
    """Do the same as a part of a statement (see ``dialects.writes_in_with``)."""
    return notifying(CHANNEL)


def listen(database: Database) -> Iterator[None]:
    """Yield once when listening, then whenever jobs have become ready; nothing where nobody ever tells.

    Raises DatabaseUnreachableError when the connection breaks.
    """
    with database.outside_transactions() as connection:
        yield from notifications(connection, CHANNEL)


def install(database: Database) -> None:
    """Make the trigger that tells of every ready row, whoever inserts it. Making it again does no harm.

    Raises UsageError where the database has no such thing, ConflictError if the table was busy for too long.
    """
    with database.write() as connection:
        if not create_notifier(connection, TRIGGER, ready.name, CHANNEL):
            raise UsageError(f"{database} cannot notify: only PostgreSQL can; its workers poll")


def remove(database: Database) -> None:
    """Remove that trigger, if it is there."""
    with database.write() as connection:
        drop_notifier(connection, TRIGGER, ready.name)


def notify(connection: Connection, channel: str) -> None:
    """Send word on a channel once this transaction is committed, where the database can."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"NOTIFY {channel}")


def notifying(channel: str) -> ColumnElement[Any]:
    """Do the same as a part of a statement, where the database can change several tables in one."""
    return func.pg_notify(channel, "")


def notifications(connection: Connection, channel: str) -> Iterator[None]:
    """Yield once when listening, then whenever word has come on the channel.

    Nothing where the database has no such thing. The connection must be outside of any transaction.
    """
    if connection.dialect.name != "postgresql":
        return
    connection.exec_driver_sql(f"LISTEN {channel}")
    yield
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    try:
        for _ in driver.notifies():
            yield
    except driver.Error as error:  # SQLAlchemy does not see this one
        raise DBAPIError("LISTEN", None, error, connection_invalidated=True) from error


def create_notifier(connection: Connection, name: str, table: str, channel: str) -> bool:
    """Make a trigger that sends word for every statement that inserts into the table. False where there are none."""
    if connection.dialect.name != "postgresql":
        return False
    body = f"BEGIN NOTIFY {channel}; RETURN NULL; END"
    for statement in (
        f"SET LOCAL lock_timeout = {SCHEMA_LOCK_TIMEOUT * 100}",  # whoever enqueues waits behind us meanwhile
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS '{body}'",
        f"DROP TRIGGER IF EXISTS {name} ON {table}",
        f"CREATE TRIGGER {name} AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {name}()",
    ):
        connection.exec_driver_sql(statement)
    return True


def drop_notifier(connection: Connection, name: str, table: str) -> None:
    """Remove such a trigger, if it is there."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name} ON {table}")
        connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {name}()")
