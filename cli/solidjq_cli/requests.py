"""What retry and discard share: one request, from the choice of jobs to its exit code."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from solidjq_cli import attendance, moving, new_arguments, options, outcomes, positions, view
from solidjq_cli.exits import Exit
from solidjq_cli.ids import report_missing
from solidjq_cli.render import Output, drawn, note
from solidjq_cli.selection import FilterOptions, explain, note_unknown_names
from solidjq_cli.stopping import accounted
from solidjq_cli.tally import Groups, Tally, Tense

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from solidjq import Database
    from solidjq.ledger.operations import Operation
    from solidjq.queue.jobs import JobView
    from solidjq.recovery.details import Detail
    from solidjq.recovery.rests import Rests
    from solidjq.recovery.terms import RetryTerms, Selection
    from solidjq.recovery.verdicts import Decision
    from solidjq.settings.policy import Policy
    from solidjq_cli.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOptions(options.OptionGroup):
    """Whether to move the jobs, only to show the plan, or to write it; and whether to ask before."""

    dry_run: options.DryRunOption = False
    plan_out: options.PlanOutOption = None
    sign_with: options.SignOption = None
    fast: options.FastOption = False
    yes: options.YesOption = False


class Request:
    """One command line, from the choice of jobs to its exit code."""

    def __init__(
        self,
        command: Session,
        database: Database,
        verb: str,
        terms: RetryTerms,
        policy: Policy,
        reason: str | None,
    ) -> None:
        from solidjq.recovery.refusals import Refusals

        self.command = command
        self.database = database
        self.verb = verb
        self.terms = terms
        self.policy = policy
        self.reason = reason
        self.tally = Tally()
        self.rests: Rests | None = None
        self.refusals = Refusals()
        self.served: set[int] = set()
        self.jobs: Mapping[str, Sequence[JobView]] | None = None  # by the id that was given; None if none was
        self.asks = True  # whether it asks before it moves jobs; not if each job was named by its id
        self.confirms = False  # whether it has the profile's name typed for several jobs, each named by its id
        self.implied_deaths = False
        self.shown: Groups | None = None  # the plan, if it is on the terminal already

    def choose(
        self, names: list[str] | None, filters: FilterOptions, *, limit: int | None, batch: int, need_filter: bool
    ) -> None:
        """Choose the jobs by names or by filter. Raises UsageError if neither limits the choice."""
        from solidjq.errors import UsageError
        from solidjq.queue.failed import Filter
        from solidjq.recovery.terms import Selection, filter_for

        resolved = filters.resolve(self.database, names)
        note_unknown_names(self.database, Filter(not_classes=resolved.chosen.not_classes))
        if resolved.jobs or resolved.by_id:
            self.jobs = resolved.jobs
        if self.terms.with_arguments is not None:
            new_arguments.check(self.jobs if resolved.by_id else None, self.terms.with_arguments)
        if self.terms.resume_at is not None:
            positions.check(self.jobs if resolved.by_id else None, self.terms.resume_at)
        if self.terms.skip_record:
            positions.check_skip(self.jobs if resolved.by_id else None)
        if resolved.by_id:
            self.asks = False
            self.confirms = len(resolved.job_ids) > 1 and self.command.connecting.confirm_name is not None
            self.selection = Selection(chosen=resolved.chosen, job_ids=resolved.job_ids, limit=limit, batch=batch)
            return
        if need_filter and resolved.chosen == Filter():
            raise UsageError(f"which jobs? Name them (42, d13), or a filter such as --died; see: jq {self.verb} --help")
        chosen = filter_for(self.terms, resolved.chosen)
        self.implied_deaths = chosen.deaths != resolved.chosen.deaths
        self.selection = Selection(chosen=chosen, limit=limit, batch=batch)

    def run(
        self, output: Output, move: MoveOptions, *, canary: int | None = None, patience: float = 0, watch: bool = False
    ) -> None:
        """Show the plan, ask for confirmation, move the jobs, follow them, and exit with the matching code."""
        from solidjq.errors import UsageError
        from solidjq.recovery import plans
        from solidjq.recovery.details import Detail
        from solidjq.text import count_of

        if move.sign_with is not None and move.plan_out is None:
            raise UsageError("--sign-with signs a plan; it goes with --plan-out")
        if move.plan_out is not None:
            key = None if move.sign_with is None else plans.read_key(move.sign_with)
            planned = moving.with_progress(self._plan(Detail.JOBS), self._total())
            count = plans.write(
                move.plan_out,
                self.database.identity(),
                self.terms,
                self.tally.add(decision for batch in planned for decision in batch),
                key=key,
            )
            what = "a plan" if key is None else "a signed plan"
            verify = "" if move.sign_with is None else f" --verify-with {shlex.quote(str(move.sign_with))}"
            note(
                f"wrote {what} of {count_of(count, 'job')}, {self.tally.held_back:,} held back; "
                f"to carry it out: jq apply {shlex.quote(str(move.plan_out))}{verify}"
            )
            if left_out := self.tally.moved - count:
                note(f"{count_of(left_out, 'job')} left out: their names are too long for a plan; name them by id")
            self._explain()
            self._note_attendance(self.tally)
            self._exit_if_missing()
            return
        detail = moving.detail(output, by_job=self.jobs is not None)
        if move.dry_run:
            self._show(self._plan(detail), output, done="would move")
            self._exit_if_missing()
            return
        if (self.asks or self.confirms or view.host() is not None) and not move.yes:
            if not moving.on_a_terminal():
                what = "several jobs of this profile need" if self.confirms else "anything but job ids needs"
                raise UsageError(f"without a terminal to ask on, {what} --yes; --dry-run shows what it would do")
            self._ask(output, detail)
        else:
            attendance.settle(self._warning(), yes=move.yes, question=f"{self.verb} them all the same?")
        if canary is not None:
            self._refuse_vain_canary(canary)
        operation = self.command.operation(self.verb, self.reason, chosen=self._record())
        self.rests = moving.rests(self.database, fast=move.fast)
        with accounted(self.tally.account(self.database, operation)):
            if canary is not None:
                self._canary(operation, canary, patience)
            run = self._retry(self.selection, self.terms, operation, detail)
            self._show(run, output, done="moved")
        held = [f"held back {count_of(self.tally.held_back, 'job')}"] if self.tally.held_back else []
        self.tally.conclude(operation, *held, *self.refusals.words(), *self._obstacles(self.tally))
        died = watch and operation.id is not None and outcomes.watch(self.database, operation.id, output)
        self._exit(died=died)

    # -- steps --------------------------------------------------------------------------------------------------------

    def _plan(self, detail: Detail) -> Iterator[list[Decision]]:
        from solidjq.recovery import retry as recovery_retry

        plan = recovery_retry.plan(self.database, self.selection, self.terms, policy=self.policy, detail=detail)
        return self._noting_served(plan)

    def _retry(
        self, selected: Selection, terms: RetryTerms, operation: Operation, detail: Detail
    ) -> Iterator[list[Decision]]:
        from solidjq.recovery import retry as recovery_retry

        run = recovery_retry.retry(
            self.database,
            selected,
            operation,
            terms,
            policy=self.policy,
            moved_before=self.tally.moved,
            detail=detail,
            rests=self.rests,
            refusals=self.refusals,
        )
        return self._noting_served(run)

    def _noting_served(self, batches: Iterator[list[Decision]]) -> Iterator[list[Decision]]:
        """Record which of the jobs that were named by id got a decision, or were refused by the database."""
        for batch in batches:
            if self.jobs is not None:
                self.served.update(decision.job_id for decision in batch)
            yield batch
        self.served.update(self.refusals.errors)

    def _show(self, batches: Iterator[list[Decision]], output: Output, *, done: str) -> None:
        moving.show(
            batches,
            output,
            self.tally,
            by_job=self.jobs is not None,
            total=self._total(),
            shown=self.shown,
            refusals=self.refusals,
            empty="" if self.tally.groups else f"no failed jobs to {self.verb}",
            verb=self.verb,
            tense=Tense.DRY_RUN if done == "would move" else Tense.DID,
            notes=self._attendance if done == "would move" else lambda _: [],
        )
        self._explain()
        is_drawn = drawn(output) and not moving.lists_jobs(output, by_job=self.jobs is not None)
        if done == "would move" and self.tally.groups and not is_drawn:
            from solidjq.text import count_of

            self._note_attendance(self.tally)
            note(
                f"would {self.verb} {count_of(self.tally.moved, 'job')} and hold back {self.tally.held_back:,}; "
                "nothing was changed"
            )

    def _explain(self, tally: Tally | None = None) -> None:
        """Say why nothing was selected, or which of several names selects nothing."""
        if not self.asks:
            return
        if (tally or self.tally).groups or self.refusals.errors:
            note_unknown_names(self.database, self.selection.chosen)
        else:
            explain(self.database, self.selection.chosen, implied_deaths=self.implied_deaths)

    def _total(self) -> int | None:
        from solidjq.queue.failed import count_failures

        if self.jobs is not None or not moving.on_a_terminal():
            return None
        count = self.database.glance(count_failures, self.selection.chosen)
        return count if count is None or self.selection.limit is None else min(count, self.selection.limit)

    def _ask(self, output: Output, detail: Detail) -> None:
        """Show the plan and ask, on stderr: standard output may be a file, in another format."""
        from solidjq.recovery.details import Detail
        from solidjq.text import count_of

        planned = Tally()
        planned.count(moving.with_progress(self._plan(Detail.COUNTS), self._total()))
        if planned.moved == 0:
            self._show(self._plan(detail), output, done="moved")
            raise typer.Exit(Exit.PARTLY if planned.held_back else Exit.DONE)
        with moving.beside_the_answer():
            moving.draw(planned, Tense.ASKED, self.verb, self._attendance(planned))
        held = f", hold back {planned.held_back:,}" if planned.held_back else ""
        moving.confirm(f"{self.verb} {count_of(planned.moved, 'job')}{held}?")
        self.shown = planned.groups if view.on_terminal() else None

    def _obstacles(self, tally: Tally) -> list[str]:
        return attendance.obstacles(self.command, self.database, tally.destinations, tally.scheduled)

    def _note_attendance(self, planned: Tally) -> None:
        for line in self._attendance(planned):
            note(line)

    def _attendance(self, planned: Tally) -> list[str]:
        """Return, before the act, where long jobs go on, which jobs will wait, and which workers may die."""
        warning = self._warning(planned)
        stays = not (self.terms.restart or self.terms.resume_at or self.terms.skip_record or self.terms.discard)
        return [
            *(planned.resumptions() if stays else ()),
            *self._obstacles(planned),
            *([] if warning is None else [warning]),
        ]

    def _warning(self, planned: Tally | None = None) -> str | None:
        """Return which workers of other queues may die by this retry; None if none does."""
        queue = self.terms.isolate or self.terms.queue_as
        if queue is None or self.terms.discard:
            return None
        there = attendance.read(self.command, self.database)
        if not there.endangered(queue):
            return None
        from solidjq.recovery import retry as recovery_retry
        from solidjq.recovery.details import Detail

        if queue in {self.terms.isolate, options.QUARANTINE}:
            if planned is None:
                planned = Tally()
                planned.count(self._plan(Detail.COUNTS))
            return there.warning(queue, planned.destinations[queue])
        return there.warning(
            queue, recovery_retry.count_suspects(self.database, self.selection, self.terms, policy=self.policy)
        )

    def _refuse_vain_canary(self, size: int) -> None:
        from solidjq.recovery import canary

        there = attendance.read(self.command, self.database)
        canary.refuse_if_vain(self.database, self.selection, self.terms, size, there, policy=self.policy)

    def _canary(self, operation: Operation, size: int, patience: float) -> None:
        from solidjq.recovery import canary
        from solidjq.recovery.details import Detail
        from solidjq.text import count_of, its

        def retry(selected: Selection, terms: RetryTerms) -> Iterator[list[Decision]]:
            for batch in self._retry(selected, terms, operation, Detail.JOBS):
                yield list(self.tally.add(decision for decision in batch if decision.verdict.moves))

        outcome = canary.run(
            self.database,
            self.selection,
            self.terms,
            size,
            retry,
            operation,
            patience=patience,
            began=lambda jobs: note(
                f"canary: retried {count_of(jobs, 'job')}; waiting until {'it has' if jobs == 1 else 'they have'} ended"
            ),
        )
        if not outcome.safe:
            for line in self.refusals.words():
                note(line)
            have = "has" if outcome.waiting == 1 else "have"
            why = (
                f"{outcome.died:,} of {outcome.jobs:,} died again"
                if outcome.died
                else f"{outcome.waiting:,} of {outcome.jobs:,} {have} not ended yet"
            )
            note(f"canary: {why}; nothing else was retried")
            back = f"; to take back what still waits: jq undo {operation.id}" if outcome.waiting else ""
            note(f"to see what became of them: jq operations show {operation.id}{back}")
            raise typer.Exit(Exit.PARTLY)
        if outcome.jobs:
            errors = f", {outcome.failed:,} with an error of {its(outcome.failed)} own" if outcome.failed else ""
            ended = "it has ended" if outcome.jobs == 1 else f"all {outcome.jobs:,} have ended"
            note(f"canary: {ended}{errors}, and none died; going on")

    def _record(self) -> Mapping[str, object]:
        record: dict[str, object] = {**self.selection.chosen.to_record(), **self.terms.to_record()}
        if self.selection.job_ids is not None:
            record["ids"] = len(self.selection.job_ids)
        if self.selection.limit is not None:
            record["limit"] = self.selection.limit
        if self.terms.with_arguments is not None:
            record["with_arguments"] = new_arguments.masked(self.terms.with_arguments)
        return record

    def _exit_if_missing(self) -> None:
        """Exit as a retry would if no job has one of the ids; for a command that only shows or writes a plan."""
        if self.jobs is not None:
            report_missing(self.jobs, self.served)

    def _exit(self, *, died: bool) -> None:
        if self.jobs is not None:
            report_missing(self.jobs, self.served, held_back=self.tally.held_back)
        if self.tally.held_back or self.refusals.errors or died:
            raise typer.Exit(Exit.PARTLY)
