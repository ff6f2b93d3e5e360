"""``jq processes list``."""

from __future__ import annotations

import sys
from shutil import get_terminal_size

import typer

from solidjq_cli import columns, options, session
from solidjq_cli.render import Output, note, records
from solidjq_cli.screens import screen

group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Supervisors, workers, dispatchers, schedulers.")

WIDE = 120  # columns of a terminal, from which on the queues have room


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="processes")


@group.callback()
def _group() -> None:
    """Supervisors, workers, dispatchers, schedulers."""


@group.command("list")
@screen(sort=True)
def list_processes(
    alive_threshold: options.AliveThresholdOption = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """List the registered processes, each supervisor with its children, and whether they are alive.

    On a standby no process is called dead: heartbeats there are as old as its lag.

    \b
    Examples:
      jq processes list
      jq processes list -o json --alive-threshold 120
    """
    from solidjq.database.standby import find_standby
    from solidjq.processes import heartbeat

    command = session.current(database)
    threshold = command.alive_threshold(alive_threshold)
    with command.open().read() as connection:
        found, standby = heartbeat.list_processes(connection), find_standby(connection)
    narrow = sys.stdout.isatty() and get_terminal_size().columns < WIDE
    records(found, columns.processes(threshold, standby, narrow=narrow), output, empty="no processes are registered")
    if standby is not None:
        note(standby.doubt)
