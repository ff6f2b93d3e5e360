"""``jq retry``."""

from typing import Annotated

import typer

from solidjq_cli import columns, config
from solidjq_cli.ids import IdsArgument, read_ids, tell_missing
from solidjq_cli.render import Output, note, records


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("retry")(retry)


def retry(
    ids: IdsArgument,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the record.")] = None,
    output: config.OutputOption = Output.TABLE,
    database: config.DatabaseOption = None,
) -> None:
    """Put failed jobs back to work.

    A retried job starts with fresh attempt counters, as in Solid Queue. Its failure is archived first. A job of a
    concurrency-limited class is scheduled for now, so that a dispatcher lets it run under the limit. Running the same
    retry again changes nothing.

    An id is a job's id or its Active Job id; - reads ids from standard input. Jobs that are not failed are left as they
    are and named (exit code 6; 4 if there is no such job at all).

    \b
    Examples:
      jq retry 42 43
      jq failed list --pruned --queue mailers -o ids | jq retry -
      jq retry 42 --reason 'host was rebooted, see INC-7'
    """
    from solidjq import retrying
    from solidjq.lookup import find_jobs

    wanted = read_ids(ids)
    opened = config.opened(database)
    with opened.read() as connection:
        found = find_jobs(connection, wanted)
    job_ids = [view.job_id for views in found.values() for view in views]
    retried = retrying.retry(opened, job_ids, config.operation("retry", reason))
    with opened.read() as connection:
        moved = find_jobs(connection, [str(job_id) for job_id in retried.job_ids])
    records((view for views in moved.values() for view in views), columns.jobs(), output, empty="no job was retried")
    if retried.job_ids:
        note(f"retried {len(retried.job_ids)} jobs: {len(retried.ready)} ready, {len(retried.scheduled)} scheduled")
    tell_missing(found, retried.job_ids)
