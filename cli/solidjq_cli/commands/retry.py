"""``jq retry``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import new_arguments, options, positions, session
from solidjq_cli.ids import OptionalIdsArgument
from solidjq_cli.options import OptionGroup
from solidjq_cli.render import Output
from solidjq_cli.requests import MoveOptions, Request
from solidjq_cli.selection import FilterOptions
from solidjq_cli.times import duration_option, rate_option

if TYPE_CHECKING:
    from solidjq.recovery.terms import RetryTerms


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("retry")(retry)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions(OptionGroup):
    """The options of ``jq retry`` that choose the jobs and set the terms of the retry."""

    safe: Annotated[
        bool, typer.Option("--safe", help="Only jobs that died with their process and pass every check.")
    ] = False
    include_errors: Annotated[
        bool, typer.Option("--include-errors", help="With --safe: jobs that failed with their own error too.")
    ] = False
    force: Annotated[bool, typer.Option("--force", help="Ignore the crash limit and policy; needs --reason.")] = False
    reason: options.ReasonOption = None
    filters: FilterOptions
    max_age: options.MaxAgeOption = None
    max_crashes: Annotated[
        int | None,
        typer.Option("--max-crashes", metavar="N", min=1, max=options.MOST_INTEGER, help="Instead of policy's limit."),
    ] = None
    window: Annotated[
        str | None, typer.Option("--window", metavar="AGE", help="How far back crashes count: 72h, 7d.")
    ] = None
    limit: options.LimitOption = None
    batch: options.BatchOption = 1000
    rate: options.RateOption = None
    delay: Annotated[
        str | None, typer.Option("--delay", metavar="AGE", help="Start the first job this much later: 30s, 10m.")
    ] = None
    queue_as: Annotated[
        str | None, typer.Option("--queue-as", metavar="NAME", help="Send them to this queue instead of their own.")
    ] = None
    isolate: Annotated[
        bool, typer.Option("--isolate", help="With --safe: suspects go to the quarantine queue, not held back.")
    ] = False
    quarantine: options.QuarantineOption = options.QUARANTINE
    keep_counters: Annotated[
        bool, typer.Option("--keep-counters", help="Leave executions and exception_executions as they are.")
    ] = False
    with_arguments: new_arguments.WithArgumentsOption = None
    restart: Annotated[
        bool, typer.Option("--restart", help="Long jobs begin at their first step, not where they were.")
    ] = False
    resume_at: positions.FromOption = None
    skip_record: positions.SkipOption = False
    canary: Annotated[
        int | None,
        typer.Option(
            "--canary", metavar="N", min=1, max=10_000, help="Retry N first; the rest only if none dies again."
        ),
    ] = None
    wait: Annotated[
        str, typer.Option("--wait", metavar="AGE", help="How long the canary may take to end.", show_default=True)
    ] = "60s"
    watch: options.WatchOption = False
    move: MoveOptions

    def check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        from solidjq.errors import UsageError

        if self.force and (self.safe or not self.reason):
            raise UsageError("--force needs --reason, and goes without --safe")
        if self.isolate and not self.safe:
            raise UsageError("--isolate needs --safe: only --safe finds suspects")
        if self.with_arguments is not None and self.move.plan_out:
            raise UsageError("--with-arguments goes without --plan-out: a plan contains no arguments")
        if self.restart + (self.resume_at is not None) + self.skip_record > 1:
            raise UsageError("--restart, --from and --skip-record exclude each other")
        if self.skip_record and self.safe:
            raise UsageError("--skip-record goes without --safe, which holds a job at a stuck record")
        if self.canary is not None and (self.move.dry_run or self.move.plan_out):
            raise UsageError("--canary retries; it goes without --dry-run and --plan-out")
        if self.watch and (self.move.dry_run or self.move.plan_out):
            raise UsageError("--watch follows jobs that were retried; it goes without --dry-run and --plan-out")

    def to_terms(self) -> RetryTerms:
        """Return the terms of the retry. Raises UsageError for a malformed duration, rate or queue."""
        from solidjq.recovery.terms import RetryTerms

        return RetryTerms(
            safe=self.safe,
            include_errors=self.include_errors or self.filters.error is not None,
            force=self.force,
            max_crashes=self.max_crashes,
            window=duration_option(self.window, "--window"),
            max_age=duration_option(self.max_age, "--max-age"),
            queue_as=None if self.queue_as is None else options.queue_name(self.queue_as),
            isolate=options.queue_name(self.quarantine) if self.isolate else None,
            keep_counters=self.keep_counters,
            with_arguments=None if self.with_arguments is None else new_arguments.read(self.with_arguments),
            restart=self.restart,
            resume_at=self.resume_at,
            skip_record=self.skip_record,
            delay=duration_option(self.delay, "--delay"),
            interval=rate_option(self.rate),
        )


@options.grouped
def retry(
    ids: OptionalIdsArgument = None,
    *,
    choices: RetryOptions,
    config_file: options.ConfigOption = None,
    import_modules: options.ImportOption = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Put failed jobs back to work, by id or by filter.

    Every failure is archived first (jq history), crashes are counted, and a job over its crash limit is held back: 3
    crashes within 72 hours unless policy says otherwise (jq policy show). The counters of attempts are reset. A job of
    a concurrency-limited class is scheduled, so that a dispatcher lets it run under the limit. jq undo takes it back.

    --safe retries a job only if its process died (not on its own error), its crashes are under the limit, policy does
    not say never, it is no suspect (jq suspects), its old process is gone, no other job of the same Active Job id
    waits, runs or finished since, and it is not older than --max-age. The others are named with the first reason.
    --isolate sends suspects to a queue of their own: let a worker of one thread work on it, where nobody else is hurt.
    If workers of other queues would take them from there, it asks, and without a terminal it needs --yes.

    It names the jobs that will wait because no living worker polls their queue, it is paused, or no dispatcher lives.
    --canary refuses then.

    --with-arguments gives one job other arguments, in the form in which failed show prints them; jq undo restores the
    old ones.

    A long job goes on from its last checkpoint (jq failed show prints it). With --restart it begins anew; --from lets
    one job go on at a step that it began, after a cursor. --skip-record lets one job pass over the record at which it
    died: it goes on behind it, and its crashes count from there. It needs a step that iterates over its rows, and a
    cursor that was saved with each record, as after a second death.

    Without --safe, every job that you choose is retried, suspects included; suspects are named.

    Jobs that are named by ids move at once. With an incident (d13), a group (g2569e0c) or a filter: on a terminal it
    shows the plan and asks once; elsewhere it needs --yes. If nothing is taken, it says why. Exit code 6 if some were
    held back, or with --watch died again.

    A job that the database refuses to move, because of a trigger say, stays failed and is named, with exit code 6; the
    others move. If it refuses every job, the retry stops after fifty, with exit code 3.

    \b
    Examples:
      jq retry 42 43
      jq retry 42 --from import:48000
      jq retry 42 --skip-record --reason 'INC-7: record 48214 is damaged'
      jq retry --safe d13
      jq retry --safe --dry-run
      jq retry --safe --since 2h --yes --reason 'INC-7: host rebooted'
      jq retry --safe --class 'Report*' --queue-as big_memory --rate 100/m
      jq retry --safe --canary 5 --wait 2m --yes
      jq retry --safe --watch
      jq retry 42 --with-arguments '[2026, "orders"]' --reason 'INC-7: wrong year'
      jq retry --safe --isolate && jq work --queues quarantine --threads 1 --import jobs
      jq retry --safe --plan-out plan.json && jq apply plan.json
      jq failed list --pruned -o ids | jq retry --safe -
    """
    choices.check()
    patience = duration_option(choices.wait, "--wait") or 0
    terms = choices.to_terms()
    command = session.current(database, config_file)
    opened = command.open()
    acts = not (choices.move.dry_run or choices.move.plan_out)
    policy = command.policy(import_modules, acts=acts)
    request = Request(command, opened, "retry", terms, policy, choices.reason)
    request.choose(ids, choices.filters, limit=choices.limit, batch=choices.batch, need_filter=not choices.safe)
    request.run(output, choices.move, canary=choices.canary, patience=patience, watch=choices.watch)
