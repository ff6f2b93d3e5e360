"""``jq init``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import moving, options, session
from solidjq_cli.exits import Exit
from solidjq_cli.render import note

MOST_NAMED = 3  # indexes in a message

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from solidjq import Database
    from solidjq.database.indexes import RequiredIndex


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init")(init)


def init(
    indexes: Annotated[
        bool, typer.Option("--indexes", help="Make the indexes that Solid Queue's tables lack, too.")
    ] = False,
    notify: Annotated[
        bool | None,
        typer.Option(
            "--notify/--no-notify",
            help="PostgreSQL: make (or remove) a trigger that notifies waiting workers of every new job.",
            show_default=False,
        ),
    ] = None,
    yes: options.YesOption = False,
    database: options.DatabaseOption = None,
) -> None:
    """Create the tables that are missing; change nothing that exists.

    In a Rails application's queue database this adds only jq's own tables, all named jq_*. Running it twice is
    harmless. An SQLite file that does not exist is made.

    A database that has other tables, but not Solid Queue's, is probably an application's own: init names these and asks
    first; without a terminal it needs --yes. For an empty database it names the other queues that it can see.

    jq changes Solid Queue's own tables only when asked. --indexes makes the indexes of its schema that jq doctor
    misses, and one on failed_executions for lists by time. Workers go on meanwhile (PostgreSQL: CREATE INDEX
    CONCURRENTLY; MySQL: online). What an interrupted attempt left is made again. Where rows that must be unique are
    there twice, init says which, and asks before it deletes the surplus ones.

    --notify (PostgreSQL) makes workers of jq work start a new job within milliseconds, whoever enqueued it, Rails
    included; jobs enqueued from Python notify without it. Polling goes on all the same. The server commits
    transactions that notify one after another: leave it out if hundreds a second enqueue over many connections.

    \b
    Examples:
      jq init
      jq init --indexes
      jq init --notify
      jq init --database sqlite3:storage/queue.sqlite3
    """
    from solidjq.database.setup import initialize
    from solidjq.text import first_of

    opened = session.current(database).open(create=True, fill=False)
    opened.require_writable()
    other_queues = None if yes else _ask_beside_others(opened)
    done = initialize(opened)
    for table in done.created:
        note(f"created table {table}")
    for migration in done.migrated:
        note(f"applied migration {migration}")
    if other_queues:
        note(other_queues)
    made = _make_indexes(opened, yes=yes) if indexes else 0
    if notify is not None:
        _set_notify(opened, wanted=notify)
    if lacking := _missing_indexes(opened):
        owners = first_of(lacking, MOST_NAMED)
        note(f"{opened} lacks indexes of Solid Queue's schema: {owners}; jq init --indexes makes them")
        raise typer.Exit(Exit.PARTLY if any(index.unique for index in lacking) else Exit.DONE)
    changed = done.created or done.migrated or made or notify is not None
    note(f"{opened} is ready" if changed else f"{opened} was ready; nothing to do")


def _ask_beside_others(database: Database) -> str | None:
    """Ask before a queue is made among the tables of an application.

    Returns, for an empty database, which queues are elsewhere; None if there are none.
    """
    from solidjq.database.other_queues import names_of
    from solidjq.errors import UsageError

    around = database.look_around()
    if around.has_queue:
        return None
    elsewhere = f"Solid Queue's tables are in {names_of(around.queues)}" if around.queues else ""
    if not around.tables:
        return f"{elsewhere}; this made another queue, in {around.here}" if elsewhere else None
    what = f"{around.here} has no Solid Queue tables, but {around.others}"
    if elsewhere:
        what += f"; {elsewhere}"
    if not moving.on_a_terminal():
        raise UsageError(f"{what}; to make a queue beside the other tables all the same, add --yes")
    note(what)
    moving.confirm("make a queue beside the other tables?")
    return None


def _set_notify(database: Database, *, wanted: bool) -> None:
    from solidjq.database import notices

    if wanted:
        notices.install(database)
        note("a trigger now notifies waiting workers of every new job")
    else:
        notices.remove(database)
        note("waiting workers poll")


def _missing_indexes(database: Database) -> list[RequiredIndex]:
    from solidjq.database.indexes import missing

    with database.read() as connection:
        return missing(connection)


def _remove_duplicates(database: Database, *, yes: bool) -> None:
    """Delete the rows that keep a unique index from being made, after asking."""
    from solidjq.database import duplicates
    from solidjq.errors import UsageError
    from solidjq.text import count_of

    with database.read() as connection:
        twice = duplicates.find(connection)
    if not twice:
        return
    duplicates.require_removable(twice)
    for duplicate in twice:
        note(str(duplicate))
    surplus = count_of(sum(duplicate.rows for duplicate in twice), "surplus row")
    if not yes:
        if not moving.on_a_terminal():
            raise UsageError(f"to make the indexes, {surplus} must be deleted first: add --yes")
        moving.confirm(f"delete {surplus}? The oldest of each stays; of semaphores, the one with the fewest free slots")
    operation = session.current().operation("init")

    def remove(connection: Connection, index: RequiredIndex) -> int:
        removed = duplicates.remove_some(connection, index)
        if removed:
            operation.record_if_possible(connection, 0)
        return removed

    for duplicate in twice:
        while removed := database.transact(remove, duplicate.required):
            note(f"deleted {count_of(removed, 'surplus row')} of {duplicate.required.table}")


def _make_indexes(database: Database, *, yes: bool) -> int:
    from solidjq.database.indexes import create_missing

    _remove_duplicates(database, yes=yes)
    made = 0
    for index in create_missing(database):
        note(f"created index {index.name} on {index}")
        made += 1
    return made
