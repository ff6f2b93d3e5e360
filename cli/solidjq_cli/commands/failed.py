"""``jq failed list`` and ``jq failed show``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import columns, config, selection
from solidjq_cli.commands import failed_diff
from solidjq_cli.ids import IdsArgument, read_ids, tell_missing
from solidjq_cli.render import Output, details, note, records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from solidjq.queue.failed import Failure

TABLE_LIMIT = 100

group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Failed jobs: list them, look at one.")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="failed")
    group.command("diff")(failed_diff.diff)


@group.command("list")
def list_failed(
    pruned: selection.PrunedOption = False,
    exited: selection.ExitedOption = False,
    missing: selection.MissingOption = False,
    died: selection.DiedOption = False,
    error: selection.ErrorOption = None,
    queue: selection.QueueOption = None,
    class_name: selection.ClassOption = None,
    since: selection.SinceOption = None,
    until: selection.UntilOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=1,
            max=config.MOST_ID,
            help=f"At most N  [default: {TABLE_LIMIT} on a terminal, else all]",
        ),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(
            "--after", metavar="FAILURE", min=0, max=config.MOST_ID, help="Go on below this failure_id: the next page."
        ),
    ] = None,
    output: config.OutputOption = Output.TABLE,
    database: config.DatabaseOption = None,
) -> None:
    """List failed jobs, the newest first.

    \b
    Examples:
      jq failed list --died --since 1h
      jq failed list --class 'Report*' --error timeout
      jq failed list --pruned -o ids | jq retry -
      jq failed list -o json --limit 500 --after 81200
    """
    from solidjq.queue.failed import count_failures, list_failures

    opened = config.opened(database)
    compares = since is not None or until is not None
    chosen = selection.make_filter(
        opened.now() if compares else datetime.now(UTC),  # the database's clock takes a transaction
        pruned=pruned,
        exited=exited,
        missing=missing,
        died=died,
        error=error,
        queue=queue,
        class_name=class_name,
        since=since,
        until=until,
    )
    if limit is None and output is Output.TABLE and sys.stdout.isatty():
        limit = TABLE_LIMIT
    last: list[Failure] = []

    def remembering() -> Iterator[Failure]:
        for failure in list_failures(opened, chosen, limit=limit, after=after):
            last[:] = [failure]
            yield failure

    shown = records(remembering(), columns.failures(), output, empty="no failed jobs")
    if shown == limit:
        with opened.read() as connection:
            left = count_failures(connection, chosen, after=last[0].failure_id)
        if left:
            note(f"{left} more; the next page: --after {last[0].failure_id}")


@group.command("show")
def show_failed(
    ids: IdsArgument,
    output: config.OutputOption = Output.TABLE,
    database: config.DatabaseOption = None,
) -> None:
    """Show failed jobs in full: error, backtrace, arguments.

    An id is a job's id or its Active Job id, as it stands in a log; - reads ids from standard input.

    \b
    Examples:
      jq failed show 42
      jq failed show 0b8e9c1a-0f6a-4c0e-9d56-2f7c2f6d5a10 -o json
    """
    from solidjq.queue.failed import failures_of
    from solidjq.queue.jobs import find_jobs

    wanted = read_ids(ids)
    opened = config.opened(database)
    with opened.read() as connection:
        found = find_jobs(connection, wanted)
        asked = list(dict.fromkeys(view.job_id for views in found.values() for view in views))
        by_job = {failure.job_id: failure for failure in failures_of(connection, asked)}
    failures = [by_job[job_id] for job_id in asked if job_id in by_job]
    details(failures, columns.failure_details(), output)
    tell_missing(found, by_job.keys())
