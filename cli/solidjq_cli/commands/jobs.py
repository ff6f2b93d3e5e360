"""``jq jobs list``, ``show``, ``times``, ``stop``, ``discard``, ``run-now``, ``postpone`` and ``move``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from solidjq_cli import options, paging, session, stop_requests, waiting_moves
from solidjq_cli.ages import rfc3339
from solidjq_cli.columns.jobs import class_time_fields, job_columns, job_fields, listed_job_fields
from solidjq_cli.exits import Exit
from solidjq_cli.ids import IdsArgument, OptionalIdsArgument, read_ids
from solidjq_cli.job_selection import JobOptions, explain, named_jobs, requested_jobs
from solidjq_cli.render import Output, details, drawn, ids_suffice, note, records
from solidjq_cli.screens import screen, shows_arguments
from solidjq_cli.stop_requests import StopOptions
from solidjq_cli.times import parse_due, parse_time
from solidjq_cli.waiting_moves import WaitingOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from solidjq.recovery.waiting import WaitingTerms

MOST_HOLDERS = 20  # jobs of each state that hold a slot of the keys in question

group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Jobs in any state: list, show, stop, move them.")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="jobs")


@group.callback()
def _group() -> None:
    """Jobs in any state: list them, look at one, stop those that run; discard, postpone or move those that wait."""


@group.command("list")
@screen(sort=True)
@shows_arguments
@options.grouped
def list_all(
    names: OptionalIdsArgument = None,
    *,
    filters: JobOptions,
    process: Annotated[
        list[str] | None,
        typer.Option("--process", metavar="NAME", help="Claimed by this process: its name or id; may be repeated."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="NAME", help="Claimed by a process on this host, or web*; may be repeated."),
    ] = None,
    limit: options.ListLimitOption = None,
    page_after: Annotated[int | None, options.page_after("job id: the next page")] = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """List jobs in any state, the newest first: all that have not finished, or those in the states that are named.

    \b
    Examples:
      jq jobs list
      jq jobs list --state ready --until 1h
      jq jobs list --state claimed --host worker-4
      jq jobs list --argument gid://shop/Order/77 --state finished --state failed
      jq jobs list --key 'ImportJob/*' -o ids
    """
    from solidjq.queue.listing import UNFINISHED, count_jobs, count_with_older, list_job_ids, list_jobs

    opened = session.current(database).open()
    ids, missing = named_jobs(opened, names)
    chosen = filters.to_filter(opened, ids, UNFINISHED, processes=process, hosts=host)
    limit = options.list_limit(limit, output)
    listing: Callable[..., Iterator[Any]] = list_job_ids if ids_suffice(output) else list_jobs
    jobs = listing(opened, chosen, limit=limit, after=page_after)
    page = paging.Page(jobs, limit, lambda last: opened.glance(count_jobs, chosen, after=last.job_id))

    def head(shown: int) -> str:
        last = page.end(shown)
        below = 0 if last is None else last.job_id
        counted, older = opened.glance(count_with_older, chosen, below, after=page_after) or (None, None)
        page.count_with_heading(shown, older)
        return _heading(counted)

    shown = records(
        page,
        job_columns() if drawn(output) else listed_job_fields(),
        output,
        empty="" if missing else "no jobs",
        head=head,
    )
    if page.last is not None:
        last, older = page.last.job_id, page.older(shown)
        if drawn(output):
            paging.show_next(last, older, f"jobs show {last}")
        else:
            paging.note_next(last, older)
    if not shown and page_after is None and not missing:
        explain(opened, chosen)
    if missing:
        raise typer.Exit(Exit.PARTLY if shown else Exit.NO_SUCH_JOB)


def _heading(counted: int | None) -> str:
    from solidjq.text import count_of

    if counted is None:
        return f"jobs; {paging.order()}"
    return f"{count_of(counted, 'job')}; {paging.order()}" if counted > 1 else count_of(counted, "job")


@group.command("show")
@screen()
@shows_arguments
def show(
    ids: IdsArgument,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Show jobs in any state: where each is, who holds it, its arguments and its error.

    An Active Job id may name several jobs, one an attempt; an incident names the jobs that were in flight at it. Of a
    blocked job it says which jobs hold the slots of its concurrency limit, of a running one who asked it to stop.

    \b
    Examples:
      jq jobs show 42
      jq jobs show d13
      jq jobs show 0b8e9c1a -o json
    """
    from solidjq.ledger.stop_requests import requested_stops
    from solidjq.queue.jobs import find_jobs
    from solidjq.queue.keys import holders_of
    from solidjq.queue.states import State
    from solidjq.selection.lookups import name_jobs

    opened = session.current(database).open()
    wanted = name_jobs(opened, read_ids(ids))
    with opened.read() as connection:
        found = find_jobs(connection, wanted)
        views = list({view.job_id: view for group in found.values() for view in group}.values())
        keys = {view.concurrency_key or "" for view in views if State.BLOCKED in view.states}
        holders = holders_of(connection, keys, MOST_HOLDERS) if keys else []
        running = [view.job_id for view in views if State.CLAIMED in view.states]
        asked = requested_stops(connection, running) if running else {}
    details(views, job_fields(holders, asked), output)
    missing = [text for text, group in found.items() if not group]
    for text in missing:
        note(f"no job {text}")
    if missing:
        raise typer.Exit(Exit.PARTLY if views else Exit.NO_SUCH_JOB)


@group.command("times")
@screen(sort=True)
def times(
    queue: Annotated[
        list[str] | None, typer.Option("--queue", metavar="NAME", help="Only this queue, or mail*; may be repeated.")
    ] = None,
    class_name: Annotated[
        list[str] | None, typer.Option("--class", metavar="NAME", help="Only this job class; may be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Of jobs that finished then or later: 1h, yesterday.")
    ] = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Show how long the jobs of each class take, in seconds.

    TOOK is the time from due to finished, of the 20,000 jobs that finished last, where finished jobs are kept: the
    50th, 95th and 99th percentile. When a job began is not stored; so WAITED (from due to claimed) and RUNNING are
    those of the jobs that run now, and WAITING of the jobs that are ready now.

    \b
    Examples:
      jq jobs times
      jq jobs times --class 'Report*' --since 1h -o json
    """
    from solidjq.queue.job_times import job_times

    opened = session.current(database).open()
    earliest = None if since is None else parse_time(since, opened.now(), "--since")
    with opened.read() as connection:
        found = job_times(connection, queues=queue or (), classes=class_name or (), since=earliest)
    records(found.classes, class_time_fields(), output, empty="no jobs that run, wait or have finished")
    if found.since is not None and found.sampled and output is Output.TABLE:
        note(f"of finished jobs, those since {rfc3339(found.since)} were read")


# -- jobs that run ----------------------------------------------------------------------------------------------------


@group.command("stop")
@options.grouped
def stop(
    names: OptionalIdsArgument = None,
    *,
    filters: JobOptions,
    how: StopOptions,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Ask running jobs to stop for good: those that a worker of jq work has.

    A job stops at its next checkpoint, or when it asks whether it should stop. It saves its progress and fails as
    Cancelled: jq retry --safe holds it back, and jq retry JOB lets it go on where it was. A job that does neither runs
    on to its end. A worker of Rails cannot be asked. Jobs that are named by ids are asked at once; a filter asks you
    first, and without a terminal needs --yes.

    \b
    Examples:
      jq jobs stop 42 --reason 'INC-7: wrong file'
      jq jobs stop --class ImportJob --dry-run
      jq jobs stop --queue reports --yes
    """
    from solidjq.queue.states import State

    request = requested_jobs("stop", names, filters, database)
    chosen = request.filter((State.CLAIMED,), (State.CLAIMED,), "do not run: --state takes claimed here")
    request.end(stop_requests.carry_out(request.command, request.database, chosen, how, output, by_id=request.by_id))


# -- jobs that wait ---------------------------------------------------------------------------------------------------


@group.command("discard")
@options.grouped
def discard(
    names: OptionalIdsArgument = None,
    *,
    filters: JobOptions,
    how: WaitingOptions,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Delete jobs that wait: ready, scheduled or blocked ones; jq undo brings them back.

    A job that a worker has is left alone. Where a ready job held a slot of a concurrency limit, the next blocked job
    gets it. Jobs that are named by ids go at once; a filter asks, and without a terminal needs --yes.

    \b
    Examples:
      jq jobs discard --class NewsletterJob --dry-run
      jq jobs discard 42 43 --reason 'sent twice'
      jq jobs discard --queue mailers --since 1h --yes
    """
    from solidjq.recovery.waiting import WaitingTerms, WaitingVerb

    _move(names, filters, how, WaitingTerms(verb=WaitingVerb.DISCARD), output, database)


@group.command("run-now")
@options.grouped
def run_now(
    names: OptionalIdsArgument = None,
    *,
    filters: JobOptions,
    how: WaitingOptions,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Let scheduled jobs run now instead of at their time.

    A job of a concurrency limit becomes due, and a dispatcher lets it run under the limit. A blocked job is left alone:
    it waits for a slot.

    \b
    Examples:
      jq jobs run-now 42
      jq jobs run-now --class ReportJob --dry-run
    """
    from solidjq.recovery.waiting import WaitingTerms, WaitingVerb

    _move(names, filters, how, WaitingTerms(verb=WaitingVerb.RUN_NOW), output, database)


@group.command("postpone")
@options.grouped
def postpone(
    names: OptionalIdsArgument = None,
    *,
    to: Annotated[
        str,
        typer.Option("--to", metavar="TIME", help="In how long, or when: 2h, tomorrow 6:00, 12:00, a date."),
    ],
    filters: JobOptions,
    how: WaitingOptions,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Let jobs that wait run later.

    \b
    Examples:
      jq jobs postpone --queue reports --to 'tomorrow 6:00'
      jq jobs postpone 42 --to 2h
    """
    from solidjq.recovery.waiting import WaitingTerms, WaitingVerb

    until = parse_due(to, session.current(database).open().now(), "--to")
    _move(names, filters, how, WaitingTerms(verb=WaitingVerb.POSTPONE, until=until), output, database)


@group.command("move")
@options.grouped
def move(
    names: OptionalIdsArgument = None,
    *,
    to: Annotated[str, typer.Option("--to", metavar="QUEUE", help="The queue that they wait in from now on.")],
    filters: JobOptions,
    how: WaitingOptions,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Let jobs that wait wait in another queue, in the state that they have.

    \b
    Examples:
      jq jobs move --class ReportJob --to big_memory
      jq jobs move 42 --to low --reason 'INC-7'
    """
    from solidjq.recovery.waiting import WaitingTerms, WaitingVerb

    _move(names, filters, how, WaitingTerms(verb=WaitingVerb.MOVE, queue_name=options.queue_name(to)), output, database)


def _move(
    names: list[str] | None,
    filters: JobOptions,
    how: WaitingOptions,
    terms: WaitingTerms,
    output: Output,
    database: str | None,
) -> None:
    from solidjq.queue.states import State
    from solidjq.queue.waiting import WAITING
    from solidjq.recovery.waiting import WaitingVerb

    request = requested_jobs(terms.verb.value, names, filters, database)
    default = (State.SCHEDULED,) if terms.verb is WaitingVerb.RUN_NOW and not names else WAITING
    chosen = request.filter(default, WAITING, "do not wait: --state takes ready, scheduled and blocked here")
    command, opened = request.command, request.database
    request.end(waiting_moves.carry_out(command, opened, chosen, terms, how, output, by_id=request.by_id))
