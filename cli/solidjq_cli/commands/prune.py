"""``jq prune``."""

from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import columns, config
from solidjq_cli.render import Output, note, records

if TYPE_CHECKING:
    from solidjq import Database
    from solidjq.pruning import Pruned


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("prune")(prune)


def prune(
    alive_threshold: config.AliveThresholdOption = 300,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be pruned.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    output: config.OutputOption = Output.TABLE,
    database: config.DatabaseOption = None,
) -> None:
    """Find dead processes, fail the jobs they held, and remove them.

    A process is dead when its last heartbeat is older than the threshold by the database's clock. Its jobs fail with
    ProcessPrunedError, as Solid Queue itself would fail them; they are not retried. Jobs that are claimed by no process
    at all fail with ProcessMissingError. Any number of prunes may run at once.

    -o ids prints the ids of the jobs that failed.

    \b
    Examples:
      jq prune --dry-run
      jq prune --alive-threshold 120 --quiet      (a line for cron)
      jq prune -o json
    """
    opened = config.opened(database)
    # All of it first: a broken pipe or a full disk must not stop a prune half-way.
    found = _find(opened, alive_threshold) if dry_run else _prune(opened, alive_threshold)
    if quiet:
        return
    records(found, columns.pruned(), output, empty="no dead processes, no orphaned jobs")
    if not found:
        return
    processes = sum(1 for pruned in found if pruned.process_id is not None)
    jobs = sum(len(pruned.job_ids) for pruned in found)
    if dry_run:
        note(f"would prune {processes} processes and fail {jobs} jobs")
    else:
        note(f"pruned {processes} processes and failed {jobs} jobs; to see them: jq failed list --died")


def _find(database: "Database", threshold: float) -> "list[Pruned]":
    from solidjq import pruning

    with database.read() as connection:
        return [*pruning.find_dead(connection, threshold), *_missing(pruning.find_orphans(connection))]


def _prune(database: "Database", threshold: float) -> "list[Pruned]":
    from solidjq import crashes, pruning

    operation = config.operation("prune")
    pruned = list(pruning.prune(database, threshold, record=operation.record_if_kept))
    orphans = pruning.fail_orphans(database, record=operation.record_if_kept)
    crashes.count_all(database)
    return [*pruned, *_missing(orphans)]


def _missing(job_ids: list[int]) -> "list[Pruned]":
    """Show orphaned claims in the same list, as those of a process of which nothing is known."""
    from solidjq.pruning import Pruned

    return [Pruned(None, None, "(missing)", None, None, None, job_ids)] if job_ids else []
