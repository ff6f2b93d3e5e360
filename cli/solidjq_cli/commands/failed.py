"""``jq failed list``, ``jq failed show`` and ``jq failed diff``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solidjq_cli import diff_options, failed_list, options, paging, selection, session
from solidjq_cli.columns.failures import failure_detail_fields, failure_fields
from solidjq_cli.diff_options import TimeOptions
from solidjq_cli.exits import Exit
from solidjq_cli.ids import OptionalIdsArgument, note_unfailed, read_ids, report_missing
from solidjq_cli.render import Output, details, drawn, ids_suffice, note, records
from solidjq_cli.screens import screen, shows_arguments
from solidjq_cli.selection import FilterOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from solidjq import Database
    from solidjq.queue.failed import Failure, Filter
    from solidjq.settings.policy import Policy

MOST_SHOWN = 50  # failed jobs in full on a terminal

group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Failed jobs: list them, look at one.")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="failed")


@group.command("list")
@screen(sort=True)
@options.grouped
def list_failed(
    names: OptionalIdsArgument = None,
    *,
    filters: FilterOptions,
    limit: options.ListLimitOption = None,
    page_after: Annotated[int | None, options.page_after("failure_id: the next page")] = None,
    _after: Annotated[str | None, options.replaced("--after")] = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """List failed jobs, the newest first: all, those of an incident (d13) or a group (g2569e0c), those a filter takes.

    An empty list says on stderr which term of the filter leaves nothing, and which name does not exist.

    \b
    Examples:
      jq failed list --died --since 1h
      jq failed list --class 'Report*' --error timeout
      jq failed list --host worker-4 --since 1h
      jq failed list d13
      jq failed list --pruned -o ids | jq retry -
      jq failed list -o json --limit 500 --page-after 81200
    """
    from solidjq.queue.failed import list_failures

    opened = session.current(database).open()
    resolved = filters.resolve(opened, names, include_jobs=True)
    chosen = resolved.chosen
    limit = options.list_limit(limit, output)
    missing = {name: views for name, views in resolved.jobs.items() if not views}
    empty = "" if missing else "no failed jobs"
    if drawn(output):
        listing = list_failures(opened, chosen, limit=limit, after=page_after, arguments=False)
        shown, oldest, older = failed_list.show(session.current(), opened, listing, chosen, limit, empty=empty)
        if oldest is not None:
            failed_list.next_page(oldest, older)
    else:
        shown = _list_for_scripts(opened, chosen, limit, page_after, output, empty)
    unfailed = page_after is None and note_unfailed(resolved.jobs)
    if shown:
        selection.note_unknown_names(opened, chosen)
    elif page_after is None and not missing and not unfailed:
        selection.explain(opened, chosen)
    report_missing(missing, range(shown))


def _list_for_scripts(
    opened: Database, chosen: Filter, limit: int | None, after: int | None, output: Output, empty: str
) -> int:
    from solidjq.queue.failed import count_failures, list_failure_ids, list_failures

    listing: Callable[..., Iterator[Any]] = partial(list_failures, arguments=False)
    if ids_suffice(output):
        listing = list_failure_ids
    failures = listing(opened, chosen, limit=limit, after=after)
    page = paging.Page(failures, limit, lambda last: opened.glance(count_failures, chosen, after=last.failure_id))
    shown = records(page, failure_fields(), output, empty=empty)
    if page.last is not None:
        paging.note_next(page.last.failure_id, page.older(shown))
    return shown


@group.command("show")
@shows_arguments
@options.grouped
def show_failed(
    names: OptionalIdsArgument = None,
    *,
    filters: FilterOptions,
    full: Annotated[bool, typer.Option("--full", help="With the frames of libraries in a backtrace.")] = False,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Show failed jobs in full: error, backtrace, arguments, how often each crashed, what a safe retry would do.

    A job is named by its id, or its Active Job id as it stands in a log, or the beginning of that; an incident or a
    group names all of its jobs that are still failed. A filter chooses among them, or among all failed jobs.

    \b
    Examples:
      jq failed show 42
      jq failed show d13 --class ReportJob
      jq failed show --argument gid://shop/Order/77
      jq failed show 0b8e9c1a -o json
    """
    from solidjq.errors import UsageError
    from solidjq.queue.failed import failures_of, list_failures

    if not names and filters == FilterOptions():
        raise UsageError("which jobs? Name them (42, d13), or a filter such as --died; see: jq failed show --help")
    command = session.current(database)
    opened = command.open()
    resolved = filters.resolve(opened, names, include_jobs=filters != FilterOptions())
    if resolved.by_id and filters == FilterOptions():
        job_ids = list(dict.fromkeys(resolved.job_ids))
        with opened.read() as connection:
            by_job = {failure.job_id: failure for failure in failures_of(connection, job_ids)}
        failures: Iterable[Failure] = [by_job[job_id] for job_id in job_ids if job_id in by_job]
    else:
        failures = list_failures(opened, resolved.chosen, limit=None)
    shown: set[int] = set()

    def remembering() -> Iterator[Failure]:
        for failure in failures:
            if resolved.jobs:
                shown.add(failure.job_id)
            yield failure

    if drawn(output):
        count = _draw(opened, remembering(), command.policy(None, quiet=True), full=full)
    else:
        count = details(remembering(), failure_detail_fields(), output)
    if not count and not resolved.by_id:
        selection.explain(opened, resolved.chosen)
    report_missing(resolved.jobs, shown)


def _draw(database: Database, failures: Iterable[Failure], policy: Policy, *, full: bool) -> int:
    """Print the first of these failed jobs with all that is known about them; return how many there are."""
    from itertools import islice

    from solidjq.recovery.dossiers import compile_dossiers
    from solidjq_cli import failure_view

    rest = iter(failures)
    shown = list(islice(rest, MOST_SHOWN))
    failure_view.draw(compile_dossiers(database, shown, policy), full=full)
    more = sum(1 for _ in rest)
    if more:
        note(f"{more:,} more; to see them in lines: jq failed list; all of each: -o json")
    return len(shown) + more


@group.command("diff")
@shows_arguments
@options.grouped
def diff(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[JOB...]",
            help="One job, incident or group: its group or groups. Two: side by side. More, or - for those on standard "
            "input: the groups of all of them.",
        ),
    ] = None,
    *,
    filters: FilterOptions,
    times: TimeOptions,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=1,
            max=options.MOST_ID,
            help=f"At most N groups  [default: {diff_options.TABLE_LIMIT} on a terminal, else all]",
        ),
    ] = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Tell failures apart: which kinds there are, what is new, how two of them differ.

    Failures of one exception, message and place in the code are a group, whatever ids and times the message holds.
    Without arguments: the groups, and what sets the failed jobs apart from those that finished meanwhile. With one
    name: this group, the group of this job, or the groups of this incident. With two: side by side. With --against or
    --after: what is new (+), grown (>), shrunk (<) or gone (-).

    A comparison ends with 1 if it finds a difference, with 0 if not. -o ids prints the jobs of the groups; in a
    comparison of two times, those of new and grown groups.

    \b
    Examples:
      jq failed diff
      jq failed diff g1234abc
      jq failed diff d17
      jq failed diff 4711 4712
      jq failed list --host worker-4 -o ids | jq failed diff -
      jq failed diff --since 1h --against 24h
      jq failed diff --after 2026-11-23T04:40Z --before 2026-11-23T04:30Z
    """
    from solidjq.names import NameKind, kind_of
    from solidjq.selection.lookups import whole_name
    from solidjq_cli import failed_diff

    sides = read_ids(names or [])
    among = "-" in (names or []) or len(sides) > diff_options.SIDES
    among = among or (len(sides) == 1 and kind_of(sides[0]) is NameKind.INCIDENT)
    opened = session.current(database).open()
    archived = times.names_any
    resolved = filters.resolve(opened, sides if among else None, include_jobs=True, archived=archived, empty=among)
    missing = [name for name, views in resolved.jobs.items() if not views]
    for name in missing:
        note(f"no job {name}")
    if missing and len(missing) == len(sides):
        raise typer.Exit(Exit.NO_SUCH_JOB)
    left, right = (None, None) if among else (*(whole_name(opened, side) for side in sides), None, None)[:2]
    failed_diff.compare(opened, left, right, resolved.chosen, times, now=opened.now(), limit=limit, output=output)
    if missing:
        raise typer.Exit(Exit.PARTLY)
