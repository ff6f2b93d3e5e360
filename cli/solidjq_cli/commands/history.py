"""``jq history``."""

from __future__ import annotations

from typing import Annotated

import typer

from solidjq_cli import columns, options, session
from solidjq_cli.exits import Exit
from solidjq_cli.ids import read_ids
from solidjq_cli.render import Output, note, records


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("history")(history)


def history(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job id or an Active Job id.")],
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Tell a job's whole life: enqueued, failed, retried and by whom, finished.

    It spans every attempt under one Active Job id, failures that a retry took away, and jobs that are gone by now.

    \b
    Examples:
      jq history 42
      jq history 0b8e9c1a-0f6a-4c0e-9d56-2f7c2f6d5a10 -o json
    """
    from solidjq.ledger import history as lives

    (wanted,) = read_ids([job])
    with session.current(database).open().read() as connection:
        events = lives.history(connection, wanted)
    if not events:
        note(f"no job {wanted}")
        raise typer.Exit(Exit.NO_SUCH_JOB)
    records(events, columns.events(), output)
    crashes = sum(event.crash for event in events)
    if output is Output.TABLE:
        note(f"{crashes} crashes, {sum(event.event == 'retried' for event in events)} retries")
