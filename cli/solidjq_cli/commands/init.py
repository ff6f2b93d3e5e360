"""``jq init``."""

from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import config
from solidjq_cli.render import note

if TYPE_CHECKING:
    from solidjq import Database


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init")(init)


def init(
    indexes: Annotated[
        bool, typer.Option("--indexes", help="Make the indexes that Solid Queue's tables lack, too.")
    ] = False,
    database: config.DatabaseOption = None,
) -> None:
    """Create the tables that are missing; touch nothing that is there.

    In a Rails application's queue database this adds only jq's own tables, all named jq_*. Running it twice is
    harmless. An SQLite file that does not exist is made.

    --indexes is the one change to Solid Queue's own tables that jq ever makes, and only when asked: the indexes of its
    schema that jq doctor misses, and one on failed_executions for jq's lists of a time. Workers go on meanwhile
    (PostgreSQL: CREATE INDEX CONCURRENTLY; MySQL: online). What an interrupted attempt left is made again.

    \b
    Examples:
      jq init
      jq init --indexes
      jq init --database sqlite3:storage/queue.sqlite3
    """
    from solidjq.init import initialize

    opened = config.opened(database, create=False)
    done = initialize(opened)
    for table in done.created:
        note(f"created table {table}")
    for migration in done.migrated:
        note(f"applied migration {migration}")
    made = _make_indexes(opened) if indexes else 0
    note(f"{opened} is ready" if done.created or done.migrated or made else f"{opened} was ready; nothing to do")


def _make_indexes(database: "Database") -> int:
    from solidjq.indexes import create_missing

    made = 0
    for index in create_missing(database):
        note(f"created index {index.name} on {index}")
        made += 1
    return made
