"""``jq discard``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solidjq_cli import options, session
from solidjq_cli.ids import OptionalIdsArgument
from solidjq_cli.render import Output
from solidjq_cli.requests import MoveOptions, Request
from solidjq_cli.selection import FilterOptions
from solidjq_cli.times import duration_option

if TYPE_CHECKING:
    import typer


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("discard")(discard)


@options.grouped
def discard(
    ids: OptionalIdsArgument = None,
    *,
    reason: options.ReasonOption = None,
    filters: FilterOptions,
    max_age: options.MaxAgeOption = None,
    limit: options.LimitOption = None,
    batch: options.BatchOption = 1000,
    move: MoveOptions,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Delete failed jobs, by id or by filter.

    The failure and the job are archived first, so that jq undo can bring them back. With an incident,
    a group or a filter: on a terminal it shows the plan and asks once; elsewhere it needs --yes.

    A job that the database refuses to delete, because of a trigger say, stays failed and is named, with exit code 6;
    the others are deleted. If it refuses every job, the discard stops after fifty, with exit code 3.

    \b
    Examples:
      jq discard g2569e0c --dry-run
      jq discard 42 --reason 'customer is gone'
      jq discard --class OldReport --until 30d --dry-run
      jq discard --error 'undefined method' --queue imports --yes
    """
    from solidjq.recovery.terms import RetryTerms
    from solidjq.settings.policy import BUILT_IN

    terms = RetryTerms(discard=True, max_age=duration_option(max_age, "--max-age"))
    command = session.current(database)
    opened = command.open()
    request = Request(command, opened, "discard", terms, BUILT_IN, reason)
    request.choose(ids, filters, limit=limit, batch=batch, need_filter=True)
    request.run(output, move)
