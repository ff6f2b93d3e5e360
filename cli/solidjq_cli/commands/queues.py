"""``jq queues list``, ``pause`` and ``resume``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from solidjq_cli import columns, options, session
from solidjq_cli.render import Output, note, records

if TYPE_CHECKING:
    from collections.abc import Callable

group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Queues: how full they are; pause and resume.")

NamesArgument = Annotated[list[str], typer.Argument(metavar="QUEUE...", help="Names of queues.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="queues")


@group.command("list")
def list_queues(output: options.OutputOption = Output.TABLE, database: options.DatabaseOption = None) -> None:
    """List the queues: what waits in each, since when, and which are paused.

    \b
    Examples:
      jq queues list
      jq queues list -o csv
    """
    from solidjq.queue import overview

    with session.current(database).open().read() as connection:
        found = overview.list_queues(connection)
    records(found, columns.queues(), output, empty="no queues")


@group.command("pause")
def pause(names: NamesArgument, database: options.DatabaseOption = None) -> None:
    """Stop workers from claiming jobs of these queues; jobs still arrive.

    \b
    Example:
      jq queues pause mailers
    """
    from solidjq.queue import pauses

    _each(names, database, "pause", pauses.pause, "paused", "was paused already")


@group.command("resume")
def resume(names: NamesArgument, database: options.DatabaseOption = None) -> None:
    """Let workers claim jobs of these queues again.

    \b
    Example:
      jq queues resume mailers
    """
    from solidjq.queue import pauses

    _each(names, database, "resume", pauses.resume, "resumed", "was not paused")


def _each(
    names: list[str], database: str | None, verb: str, move: Callable[[Any, str], bool], done: str, nothing: str
) -> None:
    command = session.current(database)
    opened = command.open()
    operation = command.operation(verb)

    def recorded(connection: Any, name: str) -> bool:
        changed = move(connection, name)
        if changed:
            operation.record_if_kept(connection, 0)
        return changed

    for name in dict.fromkeys(names):
        note(f"queue {name} {done if opened.transact(recorded, name) else nothing}")
