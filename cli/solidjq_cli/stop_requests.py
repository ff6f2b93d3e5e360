"""What ``jq jobs stop`` does: show which running jobs would be asked, ask the person once, ask the jobs, say so."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

from solidjq_cli import attendance, moving, options
from solidjq_cli.render import Output, next_commands, note
from solidjq_cli.stopping import Account, accounted
from solidjq_cli.waiting_moves import JobTally, note_left, show_decisions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from solidjq import Database
    from solidjq.queue.listing import JobFilter
    from solidjq.recovery.waiting import WaitingDecision
    from solidjq_cli.session import Session

EMPTY = "no running jobs to stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOptions(options.OptionGroup):
    """How many running jobs to ask, why, and whether to ask the person before."""

    limit: options.LimitOption = None
    batch: options.BatchOption = 1000
    reason: options.ReasonOption = None
    dry_run: options.DryRunOption = False
    yes: options.YesOption = False


def carry_out(
    command: Session, database: Database, chosen: JobFilter, how: StopOptions, output: Output, *, by_id: bool
) -> int:
    """Show what would be asked to stop, ask unless the jobs were named by ids, and ask them; return how many were not.

    Raises UsageError without a terminal to ask on, unless ``--yes`` is given.
    """
    from solidjq.errors import UsageError  # noqa: PLC0415
    from solidjq.recovery import stopping  # noqa: PLC0415
    from solidjq.recovery.refusals import Refusals  # noqa: PLC0415
    from solidjq.text import count_of  # noqa: PLC0415

    threshold = attendance.alive_threshold(command)

    def plan() -> Iterator[list[WaitingDecision]]:
        return stopping.plan_stop(database, chosen, threshold, limit=how.limit, batch=how.batch)

    if how.dry_run:
        tally = show_decisions(plan(), output, by_id=by_id, empty=EMPTY)
        note(f"would ask {count_of(tally.moved, 'job')} to stop and leave {tally.left:,} alone; nothing was changed")
        return 0
    moving.confirm_by_name("ask the jobs that you named to stop?", yes=how.yes or not by_id)  # else it asks below
    if not by_id and not how.yes:
        if not moving.on_a_terminal():
            raise UsageError(
                "without a terminal to ask on, anything but job ids needs --yes; --dry-run shows what it would do"
            )
        with redirect_stdout(sys.stderr):
            planned = show_decisions(plan(), Output.TABLE, by_id=False, empty=EMPTY)
        if not planned.moved:
            return planned.left
        moving.confirm(f"ask {count_of(planned.moved, 'job')} to stop?")
    record = {**chosen.to_record(), **({} if how.limit is None else {"limit": how.limit})}
    operation = command.operation(stopping.VERB, how.reason, chosen=record)
    tally = JobTally()
    account = Account(database, operation, lambda jobs: f"asked {count_of(jobs, 'job')} to stop", lambda: tally.moved)
    refusals = Refusals()
    with accounted(account):
        asked = stopping.stop(
            database, chosen, threshold, operation, limit=how.limit, batch=how.batch, refusals=refusals
        )
        show_decisions(asked, output, by_id=by_id, empty=EMPTY, tally=tally)
    if operation.id is not None:
        note(
            f"asked {count_of(tally.moved, 'job')} to stop; a job that saves its progress, or asks whether it should "
            "stop, fails as Cancelled within seconds, and a retry goes on there"
        )
        if tally.example is not None:
            next_commands(f"history {tally.example}", f"retry {tally.example}", f"discard {tally.example}")
    note_left(tally, refusals, one="is not asked", several="are not asked")
    return tally.left
