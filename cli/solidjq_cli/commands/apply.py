"""``jq apply``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import attendance, moving, options, outcomes, session, waiting_moves
from solidjq_cli.exits import Exit
from solidjq_cli.render import Output, note
from solidjq_cli.stopping import accounted
from solidjq_cli.tally import Tally

if TYPE_CHECKING:
    from solidjq import Database
    from solidjq.recovery.plans import Plan
    from solidjq.settings.policy import Policy
    from solidjq_cli.session import Session


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("apply")(apply)


def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A plan that --plan-out wrote.")],
    reason: options.ReasonOption = None,
    verify_with: options.VerifyOption = None,
    fast: options.FastOption = False,
    yes: options.YesOption = False,
    watch: options.WatchOption = False,
    config_file: options.ConfigOption = None,
    import_modules: options.ImportOption = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Carry out a plan, exactly as it was written, or refuse.

    Nothing is moved, with exit code 5, if a job of the plan has changed meanwhile (retried, failed anew, over its limit
    by now) or is not what the plan says, or if the plan was changed or made for another database. An apply that was
    killed half-way can be run again: what this plan has moved counts as done.

    If the plan deletes jobs or was made with --force, or suspects would go to a queue that workers of other queues
    poll, it asks; without a terminal it needs --yes. The checksum in a plan detects accidents. To detect a forged plan,
    sign it: --sign-with KEYFILE, then --verify-with KEYFILE. The key is a file that only its owner may read.

    \b
    Examples:
      jq retry --safe --since 2h --plan-out plan.json
      jq apply plan.json --reason 'INC-7'
      jq apply plan.json --verify-with ~/.jq-key --yes
      jq jobs move --class ReportJob --to low --plan-out plan.json && jq apply plan.json
    """
    from solidjq.recovery import plans
    from solidjq.recovery.apply import apply_plan, require_own
    from solidjq.text import count_of

    plan = plans.read(file, key=None if verify_with is None else plans.read_key(verify_with))
    command = session.current(database, config_file)
    opened = command.open()
    policy = command.policy(import_modules, acts=True)
    operation = command.operation(
        plan.verb,
        reason,
        chosen=(plan.waiting or plan.terms).to_record(),
        plan=plan.id,
        called="apply",
    )
    require_own(opened, plan)
    if plan.signed and verify_with is None:
        note("the plan is signed, and its signature was not verified; to verify it: --verify-with KEYFILE")
    warnings = filter(None, (plan.danger(), _warning(command, opened, plan, policy)))
    attendance.settle("; ".join(warnings) or None, yes=yes, question="apply the plan all the same?")
    moving.confirm_by_name(f"apply the plan of {count_of(plan.size, 'job')}?", yes=yes)
    if plan.waiting is not None:
        waiting_moves.apply(opened, plan, plan.waiting, operation, output, fast=fast)
        return
    tally = Tally()
    with accounted(tally.account(opened, operation)):
        batches = apply_plan(opened, plan, operation, policy=policy, rests=moving.rests(opened, fast=fast))
        empty = "nothing is left of this plan: it was carried out before, or is empty"
        moving.show(batches, output, tally, by_job=False, total=plan.size, empty=empty, verb=operation.verb)
    tally.conclude(operation, *attendance.obstacles(command, opened, tally.destinations, tally.scheduled))
    if watch and operation.id is not None and outcomes.watch(opened, operation.id, output):
        raise typer.Exit(Exit.PARTLY)


def _warning(command: Session, database: Database, plan: Plan, policy: Policy) -> str | None:
    """Return which workers of other queues may die by this plan; None if none does."""
    from solidjq.recovery.apply import count_suspects_in

    queue = plan.terms.isolate or plan.terms.queue_as
    if queue is None or plan.terms.discard:
        return None
    there = attendance.read(command, database)
    if not there.endangered(queue):
        return None
    everything = queue in {plan.terms.isolate, options.QUARANTINE}
    suspects = plan.destinations.get(queue, 0) if everything else count_suspects_in(database, plan, policy=policy)
    return there.warning(queue, suspects)
