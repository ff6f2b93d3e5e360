"""What ``jq jobs discard``, ``run-now``, ``postpone`` and ``move`` share: show, ask once, move, say what was done."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from solidjq_cli import moving, options
from solidjq_cli.columns.waiting import WaitingGroup, waiting_decision_fields, waiting_group_fields
from solidjq_cli.render import Output, note, records
from solidjq_cli.requests import MoveOptions
from solidjq_cli.stopping import Account, accounted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from solidjq import Database
    from solidjq.ledger.operations import Operation
    from solidjq.queue.listing import JobFilter
    from solidjq.recovery.plans import Plan
    from solidjq.recovery.refusals import Refusals
    from solidjq.recovery.waiting import WaitingDecision, WaitingTerms
    from solidjq_cli.session import Session

_DONE = {
    "discard": ("discard", "discarded"),
    "run-now": ("let run now", "made due"),
    "postpone": ("postpone", "postponed"),
    "move": ("move", "moved"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingOptions(options.OptionGroup):
    """How to move waiting jobs, and whether to ask before."""

    limit: options.LimitOption = None
    batch: options.BatchOption = 1000
    reason: options.ReasonOption = None
    move: MoveOptions


@dataclass(slots=True)
class JobTally:
    """Counts of what was decided, in constant memory."""

    groups: Counter[tuple[str | None, str, str, str]] = field(default_factory=Counter)
    example: int | None = None  # a job that moves

    @property
    def moved(self) -> int:
        """How many jobs move."""
        return sum(count for (reason, *_), count in self.groups.items() if reason is None)

    @property
    def left(self) -> int:
        """How many jobs are left alone."""
        return self.groups.total() - self.moved

    def add(self, batches: Iterable[list[WaitingDecision]]) -> Iterator[WaitingDecision]:
        """Count the decisions and pass them on."""
        for batch in batches:
            for decision in batch:
                if decision.moves and self.example is None:
                    self.example = decision.job.job_id
                states = "+".join(state.value for state in decision.job.states) or "none"
                self.groups[decision.reason, decision.job.class_name, decision.job.queue_name, states] += 1
                yield decision

    def show(self, empty: str) -> None:
        """Print a line a group."""
        ordered = sorted(self.groups.items(), key=lambda item: (item[0][0] is not None, -item[1], item[0][1:]))
        rows = (WaitingGroup(*key, count) for key, count in ordered)
        records(rows, waiting_group_fields(), Output.TABLE, empty=empty)


def carry_out(
    command: Session,
    database: Database,
    chosen: JobFilter,
    terms: WaitingTerms,
    how: WaitingOptions,
    output: Output,
    *,
    by_id: bool,
) -> int:
    """Show what would move, ask unless the jobs were named by ids, and move them; return how many were left alone.

    Raises UsageError without a terminal to ask on, unless ``--yes`` is given.
    """
    from solidjq.errors import UsageError  # noqa: PLC0415
    from solidjq.recovery.refusals import Refusals  # noqa: PLC0415
    from solidjq.recovery.waiting import move_waiting, plan_waiting  # noqa: PLC0415
    from solidjq.text import count_of  # noqa: PLC0415

    act, acted = _DONE[terms.verb.value]
    empty = f"no waiting jobs to {act}"

    def plan() -> Iterator[list[WaitingDecision]]:
        return plan_waiting(database, chosen, terms, limit=how.limit, batch=how.batch)

    if how.move.plan_out is not None:
        return _write_plan(how.move.plan_out, how.move.sign_with, database, terms, plan())
    if how.move.dry_run:
        tally = show_decisions(plan(), output, by_id=by_id, empty=empty)
        note(f"would {act} {count_of(tally.moved, 'job')} and leave {tally.left:,} alone; nothing was changed")
        return 0
    moving.confirm_by_name(f"{act} the jobs that you named?", yes=how.move.yes or not by_id)  # else it asks below
    if not by_id and not how.move.yes:
        if not moving.on_a_terminal():
            raise UsageError(
                "without a terminal to ask on, anything but job ids needs --yes; --dry-run shows what it would do"
            )
        planned = JobTally()
        for _ in planned.add(plan()):
            pass
        with redirect_stdout(sys.stderr):
            planned.show(empty)
        if not planned.moved:
            return planned.left
        moving.confirm(f"{act} {count_of(planned.moved, 'job')}?")
    record = {**chosen.to_record(), **terms.to_record(), **({} if how.limit is None else {"limit": how.limit})}
    operation = command.operation(terms.verb.recorded, how.reason, chosen=record)
    tally = JobTally()
    account = Account(database, operation, lambda jobs: f"{acted} {count_of(jobs, 'job')}", lambda: tally.moved)
    refusals = Refusals()
    with accounted(account):
        rests = moving.rests(database, fast=how.move.fast)
        moved = move_waiting(
            database, chosen, terms, operation, limit=how.limit, batch=how.batch, rests=rests, refusals=refusals
        )
        show_decisions(moved, output, by_id=by_id, empty=empty, tally=tally)
    if operation.id is not None:
        note(f"{acted} {count_of(tally.moved, 'job')}; to take it back: jq undo {operation.id}")
    note_left(tally, refusals, one="waits as before", several="wait as before")
    return tally.left


def note_left(tally: JobTally, refusals: Refusals, *, one: str, several: str) -> None:
    """Say how many jobs were left alone, and name those that the database refused, with its errors."""
    from solidjq.text import count_of  # noqa: PLC0415

    for line in refusals.words(one=one, several=several):
        note(line)
    if tally.left:
        note(f"left {count_of(tally.left, 'job')} alone")


def _write_plan(
    path: Path, key_file: Path | None, database: Database, terms: WaitingTerms, planned: Iterator[list[WaitingDecision]]
) -> int:
    """Write the plan; return how many jobs it leaves alone."""
    from solidjq.recovery import plans  # noqa: PLC0415
    from solidjq.text import count_of  # noqa: PLC0415

    tally = JobTally()
    key = None if key_file is None else plans.read_key(key_file)
    count = plans.write(path, database.identity(), terms, tally.add(planned), key=key)
    note(f"wrote a plan of {count_of(count, 'job')}, {tally.left:,} left alone; to carry it out: jq apply {path}")
    return 0


def apply(
    database: Database,
    plan: Plan,
    terms: WaitingTerms,
    operation: Operation,
    output: Output,
    *,
    fast: bool,
) -> None:
    """Carry out a plan of waiting jobs, and say what was done."""
    from solidjq.recovery.apply import apply_waiting  # noqa: PLC0415
    from solidjq.text import count_of  # noqa: PLC0415

    _, acted = _DONE[terms.verb.value]
    tally = JobTally()
    account = Account(database, operation, lambda jobs: f"{acted} {count_of(jobs, 'job')}", lambda: tally.moved)
    with accounted(account):
        empty = "nothing is left of this plan: it was carried out before, or is empty"
        moved = apply_waiting(database, plan, terms, operation, rests=moving.rests(database, fast=fast))
        show_decisions(moved, output, by_id=False, empty=empty, tally=tally)
    if operation.id is not None:
        note(f"{acted} {count_of(tally.moved, 'job')}; to take it back: jq undo {operation.id}")


def show_decisions(
    batches: Iterable[list[WaitingDecision]], output: Output, *, by_id: bool, empty: str, tally: JobTally | None = None
) -> JobTally:
    """Consume the batches, which carries them out, and print the decisions: a line a job, or a line a group."""
    tally = JobTally() if tally is None else tally
    decisions = tally.add(batches)
    if by_id or output is not Output.TABLE:
        records(decisions, waiting_decision_fields(), output, empty=empty)
    else:
        for _ in decisions:
            pass
        tally.show(empty)
    return tally
