"""``jq retry`` and ``jq discard``: choose, look, ask once, move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import config, moving, selection
from solidjq_cli.exits import Exit
from solidjq_cli.ids import OptionalIdsArgument, read_ids, tell_missing
from solidjq_cli.render import Output, note
from solidjq_cli.times import duration_option, rate_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from solidjq import Database
    from solidjq.ledger.operations import Operation
    from solidjq.queue.failed import Filter
    from solidjq.queue.jobs import JobView
    from solidjq.recovery.retry import Selection
    from solidjq.recovery.verdicts import Decision, RetryTerms
    from solidjq.settings.policy import Policy

MOST_CHARACTERS = 255  # of a queue's name
QUARANTINE = "quarantine"

LimitOption = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=1, max=config.MOST_ID, help="Move at most N, the oldest failures first."),
]
BatchOption = Annotated[
    int, typer.Option("--batch", metavar="N", min=1, max=1000, help="Jobs a transaction.", show_default=True)
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be done.")]
PlanOutOption = Annotated[
    Path | None, typer.Option("--plan-out", metavar="FILE", help="Write the exact set for jq apply; change nothing.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
QuarantineOption = Annotated[
    str, typer.Option("--quarantine", metavar="NAME", help="The queue for suspects.", show_default=True)
]
MaxAgeOption = Annotated[
    str | None, typer.Option("--max-age", metavar="AGE", help="Only jobs that failed no longer ago: 12h, 3d.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("retry")(retry)
    app.command("discard")(discard)


def retry(
    ids: OptionalIdsArgument = None,
    safe: Annotated[
        bool, typer.Option("--safe", help="Only jobs that died with their process and pass every check.")
    ] = False,
    include_errors: Annotated[
        bool, typer.Option("--include-errors", help="With --safe: jobs that failed with their own error too.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Past the crash limit and policy; needs --reason.")] = False,
    reason: config.ReasonOption = None,
    pruned: selection.PrunedOption = False,
    exited: selection.ExitedOption = False,
    missing: selection.MissingOption = False,
    died: selection.DiedOption = False,
    error: selection.ErrorOption = None,
    queue: selection.QueueOption = None,
    class_name: selection.ClassOption = None,
    since: selection.SinceOption = None,
    until: selection.UntilOption = None,
    max_age: MaxAgeOption = None,
    max_crashes: Annotated[
        int | None,
        typer.Option("--max-crashes", metavar="N", min=1, max=config.MOST_INTEGER, help="Instead of policy's limit."),
    ] = None,
    window: Annotated[
        str | None, typer.Option("--window", metavar="AGE", help="Crashes within it count: 72h, 7d.")
    ] = None,
    limit: LimitOption = None,
    batch: BatchOption = 1000,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="N/UNIT", help="Spread them out: 100/m, 5/s, 2000/h.")
    ] = None,
    delay: Annotated[
        str | None, typer.Option("--delay", metavar="AGE", help="The first runs so much later: 30s, 10m.")
    ] = None,
    queue_as: Annotated[
        str | None, typer.Option("--queue-as", metavar="NAME", help="Send them to this queue instead of their own.")
    ] = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="With --safe: suspects go to the quarantine queue, not held back.")
    ] = False,
    quarantine: QuarantineOption = QUARANTINE,
    keep_counters: Annotated[
        bool, typer.Option("--keep-counters", help="Leave executions and exception_executions as they are.")
    ] = False,
    canary: Annotated[
        int | None,
        typer.Option(
            "--canary", metavar="N", min=1, max=10_000, help="Retry N first; the rest only if none dies again."
        ),
    ] = None,
    wait: Annotated[
        str, typer.Option("--wait", metavar="AGE", help="How long the canary may take to end.", show_default=True)
    ] = "60s",
    dry_run: DryRunOption = False,
    plan_out: PlanOutOption = None,
    yes: YesOption = False,
    config_file: config.ConfigOption = None,  # noqa: ARG001  (config.py remembers it)
    import_modules: config.ImportOption = None,
    output: config.OutputOption = Output.TABLE,
    database: config.DatabaseOption = None,
) -> None:
    """Put failed jobs back to work: these, or those that a filter takes.

    Every failure is archived first (jq history), crashes are counted, and a job over its crash limit is held back: 3
    crashes within 72 hours unless policy says otherwise (jq policy show). Counters of attempts start again. A job of a
    concurrency-limited class is scheduled, so that a dispatcher lets it run under the limit. jq undo takes it back.

    --safe retries a job only if its process died (not on its own error), its crashes are under the limit, policy does
    not say never, it is no suspect (jq suspects), its old process is gone, no other job of the same Active Job id
    waits, runs or finished since, and it is not older than --max-age. The others are named with the first reason.
    --isolate sends suspects to a queue of their own: let a worker of one thread work on it, where nobody else is hurt.

    With a filter: on a terminal it shows the plan and asks once; elsewhere it needs --yes. An id is a job's id or its
    Active Job id; - reads ids from standard input. Exit code 6 if some were held back.

    \b
    Examples:
      jq retry 42 43
      jq retry --safe --dry-run
      jq retry --safe --since 2h --yes --reason 'INC-7: host rebooted'
      jq retry --safe --class 'Report*' --queue-as big_memory --rate 100/m
      jq retry --safe --canary 5 --wait 2m --yes
      jq retry --safe --isolate && jq work --queues quarantine --threads 1 --import jobs
      jq retry --safe --plan-out plan.json && jq apply plan.json
      jq failed list --pruned -o ids | jq retry --safe -
    """
    from solidjq.errors import UsageError
    from solidjq.recovery.verdicts import RetryTerms

    if force and (safe or not reason):
        raise UsageError("--force needs --reason, and goes without --safe")
    if isolate and not safe:
        raise UsageError("--isolate goes with --safe, which tells suspects from the rest")
    if canary is not None and (dry_run or plan_out):
        raise UsageError("--canary retries; it goes without --dry-run and --plan-out")
    patience = duration_option(wait, "--wait") or 0
    terms = RetryTerms(
        safe=safe,
        include_errors=include_errors or error is not None,
        force=force,
        max_crashes=max_crashes,
        window=duration_option(window, "--window"),
        max_age=duration_option(max_age, "--max-age"),
        queue_as=None if queue_as is None else queue_name(queue_as),
        isolate=queue_name(quarantine) if isolate else None,
        keep_counters=keep_counters,
        delay=duration_option(delay, "--delay"),
        interval=rate_option(rate),
    )
    opened = config.opened(database)
    chosen = selection.make_filter(
        opened.now(),
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
    request = _Request(opened, "retry", terms, config.policy(import_modules), reason)
    request.choose(ids, chosen, limit=limit, batch=batch, need_filter=not safe)
    request.run(output, dry_run=dry_run, plan_out=plan_out, yes=yes, canary=canary, patience=patience)


def discard(
    ids: OptionalIdsArgument = None,
    reason: config.ReasonOption = None,
    pruned: selection.PrunedOption = False,
    exited: selection.ExitedOption = False,
    missing: selection.MissingOption = False,
    died: selection.DiedOption = False,
    error: selection.ErrorOption = None,
    queue: selection.QueueOption = None,
    class_name: selection.ClassOption = None,
    since: selection.SinceOption = None,
    until: selection.UntilOption = None,
    max_age: MaxAgeOption = None,
    limit: LimitOption = None,
    batch: BatchOption = 1000,
    dry_run: DryRunOption = False,
    plan_out: PlanOutOption = None,
    yes: YesOption = False,
    output: config.OutputOption = Output.TABLE,
    database: config.DatabaseOption = None,
) -> None:
    """Delete failed jobs: these, or those that a filter takes.

    The failure and the job are archived first, so that jq undo can bring them back. With a filter: on a terminal it
    shows the plan and asks once; elsewhere it needs --yes.

    \b
    Examples:
      jq discard 42 --reason 'customer is gone'
      jq discard --class OldReport --until 30d --dry-run
      jq discard --error 'undefined method' --queue imports --yes
    """
    from solidjq.recovery.verdicts import RetryTerms
    from solidjq.settings.policy import BUILT_IN

    terms = RetryTerms(discard=True, max_age=duration_option(max_age, "--max-age"))
    opened = config.opened(database)
    chosen = selection.make_filter(
        opened.now(),
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
    request = _Request(opened, "discard", terms, BUILT_IN, reason)
    request.choose(ids, chosen, limit=limit, batch=batch, need_filter=True)
    request.run(output, dry_run=dry_run, plan_out=plan_out, yes=yes)


def queue_name(name: str) -> str:
    """Return the name of a queue. Raises UsageError for what cannot be one."""
    from solidjq.errors import UsageError

    if not 0 < len(name) <= MOST_CHARACTERS:
        raise UsageError("a queue's name has 1 to 255 characters")
    return name


class _Request:
    """One command line, from the choice of jobs to its exit code."""

    def __init__(self, database: Database, verb: str, terms: RetryTerms, policy: Policy, reason: str | None) -> None:
        self.database = database
        self.verb = verb
        self.terms = terms
        self.policy = policy
        self.reason = reason
        self.tally = moving.Tally()
        self.served: set[int] = set()
        self.found: Mapping[str, Sequence[JobView]] | None = None

    def choose(
        self, ids: list[str] | None, chosen: Filter, *, limit: int | None, batch: int, need_filter: bool
    ) -> None:
        """Find out which jobs are meant. Raises UsageError if that could be every failed job there is."""
        from solidjq.errors import UsageError
        from solidjq.queue.failed import Filter
        from solidjq.queue.jobs import find_jobs
        from solidjq.rails.error_text import Death
        from solidjq.recovery.retry import Selection

        if ids:
            wanted = read_ids(ids)
            with self.database.read() as connection:
                self.found = find_jobs(connection, wanted)
            job_ids = [view.job_id for views in self.found.values() for view in views]
            self.selection = Selection(chosen=chosen, job_ids=job_ids, limit=limit, batch=batch)
            return
        if need_filter and chosen == Filter():
            raise UsageError(f"which jobs? Name ids, or a filter such as --died or --class; see: jq {self.verb} --help")
        if self.terms.safe and not self.terms.include_errors and not chosen.deaths:
            chosen = replace(chosen, deaths=frozenset(Death))
        self.selection = Selection(chosen=chosen, limit=limit, batch=batch)

    def run(
        self,
        output: Output,
        *,
        dry_run: bool,
        plan_out: Path | None,
        yes: bool,
        canary: int | None = None,
        patience: float = 0,
    ) -> None:
        """Show, ask, do, and exit with the code for it."""
        from solidjq.errors import UsageError
        from solidjq.recovery import plans

        if plan_out is not None:
            planned = moving.with_progress(self._plan(by_job=True), self._total())
            count = plans.write(
                plan_out, self.terms, self.tally.add(decision for batch in planned for decision in batch)
            )
            note(f"wrote a plan of {count} jobs, {self.tally.held} held back; to carry it out: jq apply {plan_out}")
            return
        by_job = moving.lists_jobs(output, by_job=self.found is not None)
        if dry_run:
            self._show(self._plan(by_job=by_job), output, done="would move")
            return
        if self.found is None and not yes:
            if not moving.on_a_terminal():
                raise UsageError("without a terminal to ask on, a filter needs --yes; --dry-run shows what it would do")
            self._ask()
        operation = config.operation(self.verb, self.reason, chosen=self._record())
        with moving.interruptible(self.tally.words):
            if canary is not None:
                self._canary(operation, canary, patience)
            run = self._retry(self.selection, self.terms, operation, by_job=by_job)
            self._show(run, output, done="moved")
        if operation.id is not None:
            note(f"{self.tally.words()}; to take it back: jq undo {operation.id}")
        self._exit()

    # -- steps --------------------------------------------------------------------------------------------------------

    def _plan(self, *, by_job: bool) -> Iterator[list[Decision]]:
        from solidjq.recovery import retry as recovery_retry

        return recovery_retry.plan(self.database, self.selection, self.terms, policy=self.policy, by_job=by_job)

    def _retry(
        self, selected: Selection, terms: RetryTerms, operation: Operation, *, by_job: bool
    ) -> Iterator[list[Decision]]:
        from solidjq.recovery import retry as recovery_retry

        run = recovery_retry.retry(
            self.database,
            selected,
            operation,
            terms,
            policy=self.policy,
            moved_before=self.tally.moved,
            by_job=by_job,
        )
        for batch in run:
            if self.found is not None:
                self.served.update(decision.job_id for decision in batch)
            yield batch

    def _show(self, batches: Iterator[list[Decision]], output: Output, *, done: str) -> None:
        moving.show(
            batches,
            output,
            self.tally,
            by_job=self.found is not None,
            total=self._total(),
            empty="" if self.tally.groups else f"no failed jobs to {self.verb}",
        )
        if done == "would move" and self.tally.groups:
            note(f"would {self.verb} {self.tally.moved} jobs and hold back {self.tally.held}; nothing was changed")

    def _total(self) -> int | None:
        from solidjq.queue.failed import count_failures

        if self.found is not None or not moving.on_a_terminal():
            return None
        with self.database.read() as connection:
            count = count_failures(connection, self.selection.chosen)
        return count if self.selection.limit is None else min(count, self.selection.limit)

    def _ask(self) -> None:
        planned = moving.Tally()
        planned.count(moving.with_progress(self._plan(by_job=False), self._total()))
        if planned.moved == 0:
            moving.groups(planned, Output.TABLE, empty=f"no failed jobs to {self.verb}")
            raise typer.Exit(Exit.PARTLY if planned.held else Exit.DONE)
        moving.groups(planned, Output.TABLE)
        held = f", hold back {planned.held}" if planned.held else ""
        moving.confirm(f"{self.verb} {planned.moved} jobs{held}?")

    def _canary(self, operation: Operation, size: int, patience: float) -> None:
        from solidjq.recovery import canary as recovery_canary

        limit = self.selection.limit
        few = replace(self.selection, limit=size if limit is None else min(size, limit))
        now = replace(self.terms, delay=None, interval=None)
        decided = (decision for batch in self._retry(few, now, operation, by_job=True) for decision in batch)
        moved = [decision.job_id for decision in self.tally.add(each for each in decided if each.verdict.moves)]
        if not moved:
            return
        note(f"canary: retried {len(moved)} jobs; waiting until they have ended")
        outcome = recovery_canary.watch(self.database, moved, patience)
        if not outcome.safe:
            why = (
                f"{outcome.died} of {len(moved)} died again"
                if outcome.died
                else f"{outcome.waiting} of {len(moved)} have not ended yet"
            )
            note(f"canary: {why}; nothing else was retried. To take back what still waits: jq undo {operation.id}")
            raise typer.Exit(Exit.PARTLY)
        errors = f", {outcome.failed} with an error of their own" if outcome.failed else ""
        note(f"canary: all {len(moved)} have ended{errors}, and none died; going on")

    def _record(self) -> Mapping[str, object]:
        given: dict[str, object] = {**self.selection.chosen.given(), **self.terms.to_record()}
        if self.selection.job_ids is not None:
            given["ids"] = len(self.selection.job_ids)
        if self.selection.limit is not None:
            given["limit"] = self.selection.limit
        return given

    def _exit(self) -> None:
        if self.tally.held:
            note(f"held back {self.tally.held} jobs")
        if self.found is not None:
            tell_missing(self.found, self.served, held=self.tally.held)
        elif self.tally.held:
            raise typer.Exit(Exit.PARTLY)
