"""``jq operations list``, ``show`` and ``verify``, and ``jq undo``."""

from __future__ import annotations

import re
from collections import Counter, deque
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import moving, operation_view, options, outcomes, session
from solidjq_cli.columns.operations import chain_report_fields, operation_columns, operation_fields, undone_job_fields
from solidjq_cli.exits import Exit
from solidjq_cli.ids import read_operation_id
from solidjq_cli.render import Output, details, drawn, heading, next_commands, note, records
from solidjq_cli.screens import screen
from solidjq_cli.stopping import Account, accounted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from solidjq.recovery.undo import UndoneJob

MOST_NAMED = 5  # unsealed operations in a line

group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="The record: who changed what, when and why.")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="operations")
    app.command("undo")(undo)


@group.command("list")
@screen(sort=True)
def list_operations(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=options.MOST_ID, help="At most N.")] = 50,
    page_after: Annotated[int | None, options.page_after("operation: the next page", 1)] = None,
    _before: Annotated[str | None, options.replaced("--before")] = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """List what was done with jq, the newest first.

    \b
    Examples:
      jq operations list
      jq operations list --limit 500 -o json
    """
    from solidjq.ledger import operations
    from solidjq.text import count_of

    with session.current(database).open().read() as connection:
        listed = operations.list_operations(connection, limit=limit, before=page_after)
    if drawn(output):
        head = f"{count_of(len(listed), 'operation')}, the newest first" if listed else ""
        records(listed, operation_columns(), output, empty="nothing was done yet", head=head)
        if listed:
            older = [f"operations list --page-after {listed[-1].id}"] if len(listed) == limit else []
            next_commands(f"operations show {listed[0].id}", *older)
        return
    records(listed, operation_fields(), output, empty="nothing was done yet")
    if len(listed) == limit:
        note(f"there may be more; the next page: --page-after {listed[-1].id}")


@group.command("show")
def show_operations(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Operation ids.")],
    watch: options.WatchOption = False,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Show operations in full: the command line, the selection, the verdicts, and what became of the jobs.

    For a retry, recover, apply or bisect it counts how many jobs have finished, died again (in which incident), failed
    with an error, run, wait, or were moved by a later operation: they count there. A job that is no longer there has
    finished and was cleared (Solid Queue does that after a day, or at once), or was deleted.

    --watch follows one operation until all its jobs have ended: on a terminal a small table that is drawn again, in a
    pipe a line a change, with -o ndjson a record a change. Exit code 6 if some died again. Ctrl-C ends the watch, not
    the jobs.

    \b
    Examples:
      jq operations show 7
      jq operations show 7 --watch
      jq operations show 7 -o json
    """
    from solidjq.errors import UsageError
    from solidjq.ledger import operations
    from solidjq.recovery.outcome import PUT_BACK, outcomes_of
    from solidjq.text import with_article

    wanted = {text: read_operation_id(text) for text in ids}
    if watch:
        outcomes.check_watchable(output)
        if len(wanted) > 1:
            raise UsageError("--watch follows one operation; name one id")
    opened = session.current(database).open()
    with opened.read() as connection:
        views = operations.list_operations(connection, ids=[number for number in wanted.values() if number is not None])
        found = [] if watch else outcomes_of(connection, views)
    if watch and views:
        if views[0].verb not in PUT_BACK:
            raise UsageError(f"operation {views[0].id} put no jobs back to work: it was {with_article(views[0].verb)}")
        if outcomes.watch(opened, views[0].id, output):
            raise typer.Exit(Exit.PARTLY)
        return
    if drawn(output):
        operation_view.draw(found)
    else:
        details(found, outcomes.fields(output), output)
    existing = {operation.id for operation in views}
    missing = [text for text, number in wanted.items() if number not in existing]
    for text in missing:
        note(f"no operation {text}")
    if missing:
        raise typer.Exit(Exit.PARTLY if views else Exit.NO_SUCH_JOB)


@group.command("verify")
def verify_operations(
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="HASH", help="A last_hash of before, which the chain must still contain."),
    ] = None,
    cleared_to: Annotated[
        int,
        typer.Option(
            "--cleared-to", metavar="ID", min=0, max=options.MOST_ID, help="Rows up to this id may be cleared."
        ),
    ] = 0,
    _after: Annotated[str | None, options.replaced("--after", by="--cleared-to")] = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Check that nobody changed the record: that every operation is as it was sealed.

    When a command ends, it seals its operation: a hash over its row, what it archived, and the hash before. A record
    that was changed, removed, inserted or moved later breaks the chain; exit code 5, and each break names its
    operation.
    Operations of commands that still run, or were killed within a day, are not sealed yet.

    Who may write every table could make the whole chain anew, or remove its end. So keep last_hash where they cannot
    write, and check with --expect that the chain still contains it.

    \b
    Examples:
      jq operations verify
      jq operations verify --expect 0b1f...9c -o json
      jq operations verify --cleared-to 500
    """
    from solidjq.errors import UsageError
    from solidjq.ledger import verification
    from solidjq.text import count_of

    if expect is not None and not re.fullmatch("[0-9a-f]{64}", expect):
        raise UsageError("--expect takes a last_hash of jq operations verify: 64 hexadecimal digits")
    with session.current(database).open().read() as connection:
        report = verification.verify(connection, after=cleared_to, expected=expect)
    details([report], chain_report_fields(spoken=output is Output.TABLE), output)
    if report.broken > len(report.breaks):
        note(f"the first {len(report.breaks):,} of {report.broken:,} breaks are named")
    if report.unsealed_count:
        named = ", ".join(map(str, report.unsealed[:MOST_NAMED]))
        more = ", ..." if report.unsealed_count > MOST_NAMED else ""
        note(f"{count_of(report.unsealed_count, 'operation')} not sealed yet: {named}{more}")
    if not report.whole:
        note(f"the record is broken: {count_of(report.broken, 'break')}")
        raise typer.Exit(Exit.REFUSED)
    if not report.links:
        note("no operation is sealed yet")
        return
    note(f"the record is whole: {count_of(report.links, 'link')}; keep last_hash where nobody who can write here can")


def undo(
    operation: Annotated[str, typer.Argument(metavar="OPERATION", help="Its id, from jq operations list.")],
    reason: options.ReasonOption = None,
    fast: options.FastOption = False,
    yes: options.YesOption = False,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Take a retry or a discard back.

    Jobs that no worker has claimed yet are failed again, exactly as they were. The others are left alone and counted,
    with the reason; -o json names each. Exit code 6 if there were any. Crash counts stay. A job that the database
    refuses to move, because of a trigger say, is left alone too, and named. If it refuses every job, the undo
    stops after fifty, with exit code 3.

    It asks only where the profile has confirm = "name".

    \b
    Examples:
      jq undo 7
      jq undo 7 --reason 'wrong queue' -o json
    """
    from solidjq.errors import NoSuchJobError
    from solidjq.recovery import undo as recovery_undo
    from solidjq.text import count_of

    operation_id = read_operation_id(operation)
    command = session.current(database)
    opened = command.open()
    if operation_id is None:
        raise NoSuchJobError(f"no operation {operation}; to see them: jq operations list")
    moving.confirm_by_name(f"take operation {operation_id} back?", yes=yes)
    undoing = command.operation("undo", reason, chosen={"operation": operation_id})
    reasons: Counter[str | None] = Counter()
    by_job = output is not Output.TABLE

    def undone() -> Iterator[UndoneJob]:
        rests = moving.rests(opened, fast=fast)
        for batch in recovery_undo.undo_batches(opened, operation_id, undoing, rests=rests, by_job=by_job):
            reasons.update(batch.reasons)
            yield from batch.jobs

    account = Account(opened, undoing, lambda jobs: f"took back {count_of(jobs, 'job')}", lambda: reasons[None])
    with accounted(account):
        if by_job:
            records(undone(), undone_job_fields(), output)
        else:
            heading()
            deque(undone(), maxlen=0)
    if not reasons:
        note(f"nothing is left to take back of operation {operation_id}")
        return
    note(f"took back {count_of(reasons.pop(None, 0), 'job')} of operation {operation_id}")
    for why, count in reasons.most_common():
        note(f"left {count_of(count, 'job')} alone: {recovery_undo.reason_of(count, why or '')}")
    if reasons:
        raise typer.Exit(Exit.PARTLY)
