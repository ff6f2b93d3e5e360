"""``jq prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import columns, config
from solidjq_cli.render import Output, note, records

if TYPE_CHECKING:
    from solidjq import Database
    from solidjq.ledger.operations import Operation
    from solidjq.processes.prune_guard import Doubts
    from solidjq.processes.pruning import Pruned


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("prune")(prune)


ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Prune whoever is silent, even if they may be alive.  [env: JQ_PRUNE_FORCE=1]",
        show_default=False,
    ),
]


def prune(
    alive_threshold: config.AliveThresholdOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be pruned.")] = False,
    force: ForceOption = False,
    reason: config.ReasonOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    output: config.OutputOption = Output.TABLE,
    database: config.DatabaseOption = None,
) -> None:
    """Find dead processes, fail the jobs they held, and remove them.

    A process is dead when its last heartbeat is older than the threshold by the database's clock. Its jobs fail with
    ProcessPrunedError, as Solid Queue itself would fail them; they are not retried. Jobs that are claimed by no process
    at all fail with ProcessMissingError. Any number of prunes may run at once.

    Nothing is pruned, with exit code 5, while the silent may be alive: the database came up less than a threshold ago,
    or several hosts fell silent together. A little later the same command goes ahead. Where several processes look
    dead, it waits for half a threshold and looks again: those that live have beaten by then. A process of this host
    that still runs is spared.

    -o ids prints the ids of the jobs that failed.

    \b
    Examples:
      jq prune --dry-run
      jq prune --alive-threshold 120 --quiet      (a line for cron)
      jq prune -o json
    """
    from solidjq.errors import RefusedError

    opened = config.opened(database)
    threshold = config.alive_threshold(alive_threshold, database, acts=not dry_run)
    # All of it first: a broken pipe or a full disk must not stop a prune half-way.
    if dry_run:
        doubts = find_doubts(opened, threshold, force=force)
        found = _find(opened, threshold)
        found = [process for process in found if process.process_id not in doubts.alive]
    else:
        doubts = settle_doubts(opened, threshold, force=force, quiet=quiet)
        if doubts.refusal is not None:
            raise RefusedError(f"nothing was pruned: {doubts.refusal}; --force prunes at once")
        found = prune_all(opened, threshold, doubts, config.operation("prune", reason))
    if not quiet:
        records(found, columns.pruned(), output, empty="no dead processes, no orphaned jobs")
        _tell(found, dry_run=dry_run)
    if doubts.refusal is not None:
        note(f"would be refused: {doubts.refusal}")
    if dry_run and doubts.unsure:
        note(f"would wait {_pause(threshold):g} s and look again, whether any of them lives")
    refuse_alive(doubts)


def find_doubts(database: Database, threshold: float, *, force: bool, before: Doubts | None = None) -> Doubts:
    """Ask who is dead, and what speaks against it; nothing does if it is forced."""
    import socket

    from solidjq.processes import prune_guard

    with database.read() as connection:
        return prune_guard.find_doubts(
            connection,
            threshold,
            before=before or prune_guard.NOBODY,
            hostname=socket.gethostname(),
            force=force,
        )


def settle_doubts(database: Database, threshold: float, *, force: bool, quiet: bool) -> Doubts:
    """Ask the same, and again after a while as long as the first look is not enough for somebody."""
    import time

    doubts = find_doubts(database, threshold, force=force)
    while doubts.unsure:
        if not quiet:
            note(
                f"{len(doubts.unsure)} processes look dead; looking again in {_pause(threshold):g} s, whether any of "
                "them lives (--force prunes at once)"
            )
        database.close()  # no connection is kept from others meanwhile
        time.sleep(_pause(threshold))
        doubts = find_doubts(database, threshold, force=force, before=doubts)
    return doubts


def _pause(threshold: float) -> float:
    from solidjq.processes.prune_guard import PAUSE

    return threshold * PAUSE


def prune_all(database: Database, threshold: float, doubts: Doubts, operation: Operation) -> list[Pruned]:
    """Prune whom nothing speaks for; fail the jobs that no process holds, and count every crash there is."""
    from solidjq.ledger import crashes
    from solidjq.processes import pruning

    record = operation.record_if_kept
    pruned = list(pruning.prune(database, threshold, only=doubts.dead, record=record))
    orphans = pruning.fail_orphans(database, record=record)
    crashes.count_all(database)
    return [*pruned, *_missing(orphans)]


def refuse_alive(doubts: Doubts) -> None:
    """End with exit code 5 if a process was spared."""
    from solidjq.errors import RefusedError

    if doubts.alive:
        *others, last = doubts.alive.values()
        for words in others:
            note(f"spared: {words}")
        raise RefusedError(f"spared: {last}; stop it, or prune it with --force")


def _tell(found: list[Pruned], *, dry_run: bool) -> None:
    if not found:
        return
    processes = sum(1 for pruned in found if pruned.process_id is not None)
    jobs = sum(len(pruned.job_ids) for pruned in found)
    if dry_run:
        note(f"would prune {processes} processes and fail {jobs} jobs")
    else:
        note(f"pruned {processes} processes and failed {jobs} jobs; to see them: jq failed list --died")


def _find(database: Database, threshold: float) -> list[Pruned]:
    from solidjq.processes import pruning

    with database.read() as connection:
        return [*pruning.find_dead(connection, threshold), *_missing(pruning.find_orphans(connection))]


def _missing(job_ids: list[int]) -> list[Pruned]:
    """Show orphaned claims in the same list, as those of a process of which nothing is known."""
    from solidjq.processes.pruning import Pruned

    return [Pruned(None, None, "(missing)", None, None, None, job_ids)] if job_ids else []
