"""Word that jobs are ready, from those who enqueue to workers that wait: PostgreSQL's NOTIFY and LISTEN.

It only saves waiting. Workers poll all the same; so word that is lost, or that nobody sends, costs a polling interval
and no more. ``enqueue`` sends it; with the trigger of ``jq init --notify`` every program's ready rows do, Rails' too.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection

from solidjq.database import statements
from solidjq.database.tables import ready
from solidjq.database.transactions import Database
from solidjq.errors import UsageError

CHANNEL = "jq_ready"
TRIGGER = "jq_notify"


def send(connection: Connection) -> None:
    """Tell, once this transaction is committed, that jobs are ready."""
    statements.notify(connection, CHANNEL)


def sending() -> ColumnElement[Any]:
    """Do the same as a part of a statement (see ``dialects.writes_in_with``)."""
    return statements.notifying(CHANNEL)


def listen(database: Database) -> Iterator[None]:
    """Yield once when listening, then whenever jobs have become ready; nothing where nobody ever tells.

    Raises DatabaseUnreachableError when the connection breaks.
    """
    with database.outside_transactions() as connection:
        yield from statements.notifications(connection, CHANNEL)


def install(database: Database) -> None:
    """Make the trigger that tells of every ready row, whoever inserts it. Making it again does no harm.

    Raises UsageError where the database has no such thing, ConflictError if the table was busy for too long.
    """
    with database.write() as connection:
        if not statements.create_notifier(connection, TRIGGER, ready.name, CHANNEL):
            raise UsageError(f"{database} cannot notify: only PostgreSQL can; its workers poll")


def remove(database: Database) -> None:
    """Remove that trigger, if it is there."""
    with database.write() as connection:
        statements.drop_notifier(connection, TRIGGER, ready.name)
