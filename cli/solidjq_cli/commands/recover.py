"""``jq recover``: the whole of it in one line for cron."""

from __future__ import annotations

from typing import Annotated

import typer

from solidjq_cli import config, moving
from solidjq_cli.commands.prune import ForceOption, prune_all, refuse_alive, settle_doubts
from solidjq_cli.commands.retry import LimitOption
from solidjq_cli.exits import Exit
from solidjq_cli.render import Output, note
from solidjq_cli.times import rate_option


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("recover")(recover)


def recover(
    alive_threshold: config.AliveThresholdOption = None,
    force: ForceOption = False,
    reason: config.ReasonOption = None,
    limit: LimitOption = None,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="N/UNIT", help="Spread them out: 100/m, 5/s, 2000/h.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only show what would be retried; prune nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    config_file: config.ConfigOption = None,  # noqa: ARG001  (config.py remembers it)
    import_modules: config.ImportOption = None,
    output: config.OutputOption = Output.TABLE,
    database: config.DatabaseOption = None,
) -> None:
    """Prune dead processes, then retry what policy marks "auto", as jq retry --safe would.

    It never asks: a class is only retried if jq.toml, or its @job, says retry = "auto", and within its crash limit.
    Everything else waits for a person. Exit code 6 if a job of an "auto" class was held back; 5 if the silent may be
    alive, as with jq prune.

    \b
    Examples:
      jq recover --dry-run
      * * * * *  jq recover --quiet      (a line for cron)
    """
    from solidjq.errors import RefusedError
    from solidjq.queue.failed import Filter
    from solidjq.rails.error_text import Death
    from solidjq.recovery import retry
    from solidjq.recovery.verdicts import RetryTerms, Verdict

    policy = config.policy(import_modules)
    opened = config.opened(database)
    terms = RetryTerms(safe=True, auto_only=True, interval=rate_option(rate))
    chosen = Filter(deaths=frozenset(Death))
    selected = retry.Selection(chosen=chosen, limit=limit)
    by_job = moving.lists_jobs(output, by_job=False)
    tally = moving.Tally()
    if dry_run:
        batches = retry.plan(opened, selected, terms, policy=policy, by_job=by_job)
        moving.show(batches, output, tally, by_job=False, empty="no failed jobs to recover")
        return
    threshold = config.alive_threshold(alive_threshold, database, acts=not dry_run)
    doubts = settle_doubts(opened, threshold, force=force, quiet=quiet)
    if doubts.refusal is not None:
        raise RefusedError(f"nothing was pruned or retried: {doubts.refusal}; --force prunes at once")
    pruned = prune_all(opened, threshold, doubts, config.operation("prune", reason))
    if pruned and not quiet:
        processes = sum(process.process_id is not None for process in pruned)
        note(f"pruned {processes} processes and failed {sum(len(each.job_ids) for each in pruned)} jobs")
    operation = config.operation("recover", reason, chosen={**chosen.given(), **terms.to_record()})
    with moving.interruptible(tally.words):
        batches = retry.retry(opened, selected, operation, terms, policy=policy, by_job=by_job)
        if quiet:
            tally.count(batches)
        else:
            moving.show(batches, output, tally, by_job=False, empty="no failed jobs to recover")
    if operation.id is not None and not quiet:
        note(f"{tally.words()}; to take it back: jq undo {operation.id}")
    refuse_alive(doubts)
    held = tally.held - tally.with_verdict(Verdict.ASK, Verdict.NEVER)
    if held:
        if not quiet:
            note(f"held back {held} jobs that policy would retry; why: jq recover --dry-run -o json")
        raise typer.Exit(Exit.PARTLY)
