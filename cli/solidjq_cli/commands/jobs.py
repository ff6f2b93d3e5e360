"""``jq jobs show``."""

from __future__ import annotations

import typer

from solidjq_cli import columns, options, session
from solidjq_cli.exits import Exit
from solidjq_cli.ids import IdsArgument, read_ids
from solidjq_cli.render import Output, details, note
from solidjq_cli.screens import shows_arguments

group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Jobs in any state.")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="jobs")


@group.callback()
def _group() -> None:
    """Jobs in any state."""


@group.command("show")
@shows_arguments
def show(
    ids: IdsArgument,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Show jobs in any state: where each is, who holds it, its arguments and its error.

    An Active Job id may name several jobs, one an attempt; an incident names the jobs that were in flight at it.

    \b
    Examples:
      jq jobs show 42
      jq jobs show d13
      jq jobs show 0b8e9c1a-0f6a-4c0e-9d56-2f7c2f6d5a10 -o json
    """
    from solidjq.queue.jobs import find_jobs
    from solidjq.selection.lookups import name_jobs

    opened = session.current(database).open()
    wanted = name_jobs(opened, read_ids(ids))
    with opened.read() as connection:
        found = find_jobs(connection, wanted)
    views = list({view.job_id: view for group in found.values() for view in group}.values())
    details(views, columns.jobs(), output)
    missing = [text for text, group in found.items() if not group]
    for text in missing:
        note(f"no job {text}")
    if missing:
        raise typer.Exit(Exit.PARTLY if views else Exit.NO_SUCH_JOB)
