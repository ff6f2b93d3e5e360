"""``jq processes list``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import typer

from solidjq_cli import options, session
from solidjq_cli.columns.processes import in_trees, kind_in_words, process_columns, process_fields
from solidjq_cli.render import Output, drawn, next_commands, note, records
from solidjq_cli.screens import screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solidjq.database.standby import Standby
    from solidjq.processes.heartbeat import Process

group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Supervisors, workers, dispatchers, schedulers.")


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
        processes, standby = heartbeat.list_processes(connection), find_standby(connection)
    empty = "no processes are registered"
    if drawn(output):
        records(
            in_trees(processes),
            process_columns(threshold, standby),
            output,
            empty=empty,
            head=_heading(processes, threshold, standby) if processes else "",
        )
        if any(process.life(threshold, standby) is False for process in processes):
            next_commands("prune --dry-run", "doctor")
    else:
        records(processes, process_fields(threshold, standby), output, empty=empty)
    if standby is not None:
        note(standby.doubt)


def _heading(processes: Sequence[Process], threshold: float, standby: Standby | None) -> str:
    """Count the living by kind, then those that need a decision: the dead, and the jobs that they hold."""
    from solidjq.text import count_of

    kinds = Counter(kind_in_words(process.kind) for process in processes if process.life(threshold, standby))
    alive = ", ".join(count_of(count, kind) for kind, count in kinds.items())
    dead = [process for process in processes if process.life(threshold, standby) is False]
    jobs = sum(process.claimed for process in dead)
    holding = f", holding {count_of(jobs, 'job')}" if jobs else ""
    return "; ".join(
        [f"{alive or 'nothing'} alive", *([f"{count_of(len(dead), 'process')} dead{holding}"] if dead else [])]
    )
