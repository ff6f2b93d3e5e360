"""``jq recover``: prune and safe retry, in one line for cron."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import attendance, moving, options, outcomes, pruning, session
from solidjq_cli.exits import Exit
from solidjq_cli.render import Output, note
from solidjq_cli.stopping import accounted
from solidjq_cli.tally import Tally, Tense
from solidjq_cli.times import rate_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from solidjq import Database
    from solidjq_cli.session import Session


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("recover")(recover)


def recover(
    alive_threshold: options.AliveThresholdOption = None,
    force: options.PruneForceOption = False,
    reason: options.ReasonOption = None,
    limit: options.LimitOption = None,
    rate: options.RateOption = None,
    fast: options.FastOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only show what would be retried; prune nothing.")
    ] = False,
    quiet: options.QuietOption = False,
    watch: options.WatchOption = False,
    config_file: options.ConfigOption = None,
    import_modules: options.ImportOption = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Prune dead processes, then retry what policy marks "auto".

    Jobs are chosen as by jq retry --safe.

    It never asks: a class is only retried if jq.toml, or its @job, says retry = "auto", and within its crash limit.
    Everything else waits for a person.

    Exit code 6 if a job of an "auto" class was held back as stuck-record, over-limit, suspect or alive. What policy
    leaves to a person (ask, never, too-old) and what needs no retry (duplicate, finished) is counted on stderr, with
    exit code 0.
    A job that the database refuses to move, because of a trigger say, stays failed and is named, with exit code 6.
    Exit code 5 if silent processes may be alive, as with jq prune.

    \b
    Examples:
      jq recover --dry-run
      * * * * *  solidjq recover --quiet
    """
    from solidjq.errors import UsageError
    from solidjq.ledger import operations
    from solidjq.recovery.refusals import Refusals
    from solidjq.recovery.retry import plan, retry
    from solidjq.recovery.terms import RetryTerms, Selection, filter_for

    if watch and (quiet or dry_run):
        raise UsageError("--watch follows jobs that were retried, and prints; it goes without --quiet and --dry-run")
    command = session.current(database, config_file)
    policy = command.policy(import_modules, acts=not dry_run, quiet=quiet)
    opened = command.open()
    terms = RetryTerms(safe=True, auto_only=True, interval=rate_option(rate))
    chosen = filter_for(terms)
    selected = Selection(chosen=chosen, limit=limit)
    detail = moving.detail(output, by_job=False)
    tally = Tally()
    if dry_run:
        batches = plan(opened, selected, terms, policy=policy, detail=detail)
        moving.show(batches, output, tally, by_job=False, empty="no failed jobs to recover", tense=Tense.DRY_RUN)
        _note_dry_run(command, opened, tally, command.alive_threshold(alive_threshold), force=force)
        return
    with opened.read() as connection:
        operations.require(connection)  # before the prune: what it fails could not be retried
    threshold = command.alive_threshold(alive_threshold, acts=True)
    pruning_operation = command.operation("prune", reason, called="recover")
    operation = command.operation("recover", reason, chosen={**chosen.to_record(), **terms.to_record()})
    command.require_utc(force=force, nothing="nothing was pruned or retried")
    doubts = pruning.settle(opened, threshold, force=force, quiet=quiet, nothing="nothing was pruned or retried")
    pruned, refusal = pruning.prune(opened, threshold, doubts, pruning_operation)
    if pruned and not quiet:
        note(pruning.words(pruned))

    refusals = Refusals()

    def done() -> str | None:
        parts = [pruning.words(pruned) if pruned else None, tally.account(opened, operation)()]
        return "; ".join(filter(None, parts)) or None

    with accounted(done):
        rests = moving.rests(opened, fast=fast, quiet=quiet)
        batches = retry(
            opened, selected, operation, terms, policy=policy, detail=detail, rests=rests, refusals=refusals
        )
        if quiet:
            tally.count(batches)
        else:
            moving.show(batches, output, tally, by_job=False, refusals=refusals, empty="no failed jobs to recover")
    if not quiet:
        obstacles = attendance.obstacles(command, opened, tally.destinations, tally.scheduled, threshold)
        tally.conclude(operation, *_held_back(tally), *obstacles)
    for line in refusals.words():
        note(line)
    died = watch and operation.id is not None and outcomes.watch(opened, operation.id, output)
    pruning.leave(doubts, refusal)
    if tally.unrecovered() or refusals.errors or died:
        raise typer.Exit(Exit.PARTLY)


def _note_dry_run(command: Session, opened: Database, tally: Tally, threshold: float, *, force: bool) -> None:
    obstacles = attendance.obstacles(command, opened, tally.destinations, tally.scheduled, threshold)
    for line in (*_held_back(tally), *obstacles):
        note(line)
    if dead := pruning.preview(opened, threshold, force=force):
        would = pruning.words(dead, would=True)
        note(f"before that, it {would}, which are not counted here; see: jq prune --dry-run")


def _held_back(tally: Tally) -> Iterator[str]:
    if left := tally.held_back_words(unrecovered=False):
        yield f"left to a person, or done: {left}; to see them: jq failed list --died"
    if held := tally.held_back_words(unrecovered=True):
        yield f'held back although policy says "auto": {held}; why: jq recover --dry-run -o json'
