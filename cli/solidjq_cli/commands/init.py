"""``jq init``."""

import typer

from solidjq_cli import config
from solidjq_cli.render import note


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init")(init)


def init(database: config.DatabaseOption = None) -> None:
    """Create the tables that are missing; touch nothing that is there.

    In a Rails application's queue database this adds only jq's own tables, all named jq_*. Running it twice is
    harmless. An SQLite file that does not exist is made.

    \b
    Examples:
      jq init
      jq init --database sqlite3:storage/queue.sqlite3
    """
    from solidjq.init import initialize

    opened = config.opened(database, create=False)
    done = initialize(opened)
    for table in done.created:
        note(f"created table {table}")
    for migration in done.migrated:
        note(f"applied migration {migration}")
    note(f"{opened} is ready" if done.created or done.migrated else f"{opened} was ready; nothing to do")
