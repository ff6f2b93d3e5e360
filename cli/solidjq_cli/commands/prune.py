"""``jq prune``."""

from __future__ import annotations

from typing import Annotated

import typer

from solidjq_cli import options, pruning, session
from solidjq_cli.columns.processes import pruned_process_fields
from solidjq_cli.render import Output, note, records
from solidjq_cli.stopping import printed_after


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("prune")(prune)


def prune(
    alive_threshold: options.AliveThresholdOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be pruned.")] = False,
    force: options.PruneForceOption = False,
    reason: options.ReasonOption = None,
    quiet: options.QuietOption = False,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Find dead processes, fail the jobs they held, and remove them.

    A process is dead when its last heartbeat is older than the threshold by the database's clock. Its jobs fail with
    ProcessPrunedError, as Solid Queue itself would fail them; they are not retried. Jobs that are claimed by no process
    at all fail with ProcessMissingError. Any number of prunes may run at once.

    Nothing is pruned, with exit code 5, while silent processes may be alive: the database came up less than a threshold
    ago, or several hosts fell silent together. A little later the same command goes ahead. Where several processes look
    dead, it waits for half a threshold and looks again: processes that live have sent a heartbeat by then. Ctrl-C while
    it waits changes nothing. It does not wait for processes that have been silent for more than four thresholds while
    others went on working. A process of this host that still runs is spared. On a standby nothing is ever pruned.

    A job that the database refuses to fail, because of a trigger say, stays claimed and is named, with exit code 6; the
    others of its process fail, and the next prune tries again.

    -o ids prints the ids of the jobs that failed.

    \b
    Examples:
      jq prune --dry-run
      solidjq prune --alive-threshold 120 --quiet     # from cron
      jq prune -o json
    """
    from solidjq.processes import prune_sequence

    command = session.current(database)
    opened = command.open()
    threshold = command.alive_threshold(alive_threshold, acts=not dry_run)
    refusal = None
    # All of it first: a broken pipe or a full disk must not stop a prune half-way.
    if dry_run:
        doubts = prune_sequence.check(opened, threshold, looks_up=True, force=force)
        with opened.read() as connection:
            pruned = prune_sequence.preview(connection, threshold, doubts)
        if not quiet:
            pruning.check_record(opened, threshold, quiet=False)
    else:
        command.require_utc(force=force, nothing="nothing was pruned")
        operation = command.operation("prune", reason)
        doubts = pruning.settle(opened, threshold, force=force, quiet=quiet, nothing="nothing was pruned")
        pruned, refusal = pruning.prune(opened, threshold, doubts, operation)
    if not quiet:
        done = pruning.words(pruned, would=dry_run)
        with printed_after(done):
            nothing = "no dead processes, no orphaned jobs" if refusal is None else "nothing was pruned"
            records(pruned, pruned_process_fields(), output, empty=nothing)
        if pruned:
            failed = not dry_run and any(each.job_ids for each in pruned)
            note(f"{done}; to see them: jq failed list --died" if failed else done)
    if doubts.refusal is not None:
        note(f"would be refused: {doubts.refusal}")
    if dry_run and doubts.unsure:
        note(f"would wait {prune_sequence.pause_of(threshold):g} s and check again whether any of them lives")
    pruning.leave(doubts, refusal)
