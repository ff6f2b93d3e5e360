"""What ``jq failed diff`` computes and prints: the groups, one group, two sides, two times."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

import typer

from solidjq_cli import masking, view
from solidjq_cli.columns.column import Fields
from solidjq_cli.diff_options import TABLE_LIMIT
from solidjq_cli.diff_view import (
    _cell_fields,
    _change_fields,
    _difference_fields,
    _draw_groups,
    _group_fields,
    _sentences,
    _spelled,
    _width,
    _wrapped,
)
from solidjq_cli.render import (
    Output,
    details,
    drawn,
    heading,
    next_commands,
    note,
    paragraph,
    records,
    ticket_heading,
)
from solidjq_cli.selection import explain, note_unknown_names
from solidjq_cli.times import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from solidjq import Database
    from solidjq.diff.sides import DiffSide
    from solidjq.diff.windows import Window
    from solidjq.queue.failed import Filter
    from solidjq_cli.diff_options import TimeOptions

DIFFERENT = 1  # the exit code of a comparison that found a difference, as diff has it

_JOB_IDS: Fields[int] = Fields((), lambda job_id: [job_id])  # of ids themselves


def compare(
    opened: Database,
    left: str | None,
    right: str | None,
    chosen: Filter,
    times: TimeOptions,
    *,
    now: datetime,
    limit: int | None,
    output: Output,
) -> None:
    """Print what the command line asks for. Ends with exit code 1 if a comparison found a difference."""
    _check(left, right, times, chosen)
    if limit is None and output is Output.TABLE and view.on_terminal():
        limit = TABLE_LIMIT
    if left is not None and right is not None:
        _beside(opened, left, right, output)
    elif left is not None:
        _one_group(opened, left, chosen, output)
    elif times.names_any:
        _times(opened, chosen, _windows(now, chosen, times), output, limit)
    else:
        _groups(opened, chosen, output, limit)


def _check(left: str | None, right: str | None, times: TimeOptions, chosen: Filter) -> None:
    """Raise UsageError for options that exclude each other, and for a text that names nothing."""
    from solidjq.errors import UsageError
    from solidjq.names import kind_of

    for text in (left, right):
        if text is not None:
            kind_of(text)
    timed = [name for name in ("against", "after", "before") if getattr(times, name) is not None]
    if left is not None and timed:
        raise UsageError(f"A and B are compared as they are; leave --{timed[0]} out")
    if right is not None and chosen.to_record():
        raise UsageError("A and B are compared as they are; leave the filter out")
    if times.against is not None and (chosen.since is None or times.after is not None):
        raise UsageError("--against goes with --since, as in --since 1h --against 24h; --after stands for both")
    if times.after is not None and chosen.since is not None:
        raise UsageError("--after sets the start of the later time; leave --since out")
    if times.before is not None and times.after is None:
        raise UsageError("--before goes with --after, as in --after 04:40 --before 04:30 of one day")


def _windows(now: datetime, chosen: Filter, times: TimeOptions) -> tuple[Window, Window]:
    """Return the later and the earlier time. Raises UsageError for times in the wrong order."""
    from solidjq.diff.windows import Window
    from solidjq.durations import parse_duration
    from solidjq.errors import UsageError

    until = chosen.until or now
    if times.after is not None:
        start = parse_time(times.after, now, "--after")
        end = start if times.before is None else parse_time(times.before, now, "--before")
        if end > start:
            raise UsageError("--before lies after --after: the earlier time ends before the later one begins")
        length = until - start
        begin = _sooner(end, length)
    else:
        start = end = chosen.since or now
        duration = parse_duration(times.against or "")
        begin = parse_time(times.against or "", now, "--against") if duration is None else _sooner(end, duration)
    if start >= until or begin >= end:
        raise UsageError("each of the two times must begin before it ends, and the earlier before the later")
    return Window(start, until), Window(begin, end)


def _sooner(time: datetime, length: timedelta) -> datetime:
    from solidjq.errors import UsageError

    try:
        return time - length
    except OverflowError:
        raise UsageError("that is too long ago") from None


def _groups(opened: Database, chosen: Filter, output: Output, limit: int | None) -> None:
    from solidjq.diff import contrast as diff_contrast
    from solidjq.diff import groups as diff_groups
    from solidjq.text import count_of

    if output is Output.IDS and limit is None:
        from solidjq.queue.failed import list_failure_ids

        jobs = (failure.job_id for failure in list_failure_ids(opened, chosen, limit=None))
        _note_choice(opened, chosen, records(jobs, _JOB_IDS, output))
        return
    groups = diff_groups.group_failures(opened, chosen)
    shown = groups[:limit]
    if output is Output.IDS:
        _print_ids(opened, chosen, (group.name for group in shown))
        return
    if groups and drawn(output):
        _draw_groups(groups, shown)
    else:
        records(shown, _group_fields(), output, empty="no failed jobs")
    _note_choice(opened, chosen, len(groups))
    if len(groups) > len(shown):
        more = count_of(len(groups) - len(shown), "more group")
        note(f"{more}, {count_of(sum(g.count for g in groups[len(shown) :]), 'job')}; see --limit")
    if output is Output.TABLE and groups:
        with opened.read() as connection:
            ids = diff_groups.newest_job_ids(connection, chosen, diff_contrast.SAMPLE)
        _note_all(_sentences(diff_contrast.contrast(opened, ids), "the failed jobs"))
        if drawn(output):
            next_commands(f"failed diff {groups[0].name}", f"failed list {groups[0].name}")


def _note_choice(opened: Database, chosen: Filter, count: int) -> None:
    """Say why the filter selects nothing, or which of several names is none."""
    if count:
        note_unknown_names(opened, chosen)
    else:
        explain(opened, chosen)


def _one_group(opened: Database, text: str, chosen: Filter, output: Output) -> None:
    from solidjq.diff import contrast as diff_contrast
    from solidjq.diff import groups as diff_groups
    from solidjq.diff import sides as diff_sides
    from solidjq.errors import NoSuchJobError
    from solidjq.names import NameKind, kind_of

    is_group = kind_of(text) is NameKind.GROUP
    name = text if is_group else diff_sides.find_side(opened, text).group or text
    group = diff_groups.find_group(opened, name, chosen)
    if group is None:
        raise NoSuchJobError(f"no failure of group {name}, or the filter leaves it out; jq failed diff lists them")
    if output is Output.IDS:
        _print_ids(opened, chosen, [name])
        return
    details([group], _group_fields(whole=True), output)
    if output is Output.TABLE:
        ids = islice(diff_groups.job_ids(opened, chosen, [name]), diff_contrast.SAMPLE)
        _note_all(_sentences(diff_contrast.contrast(opened, ids), "this group"))


def _print_ids(opened: Database, chosen: Filter, names: Iterable[str]) -> None:
    from solidjq.diff import groups as diff_groups

    ids = diff_groups.job_ids(opened, chosen, frozenset(names))
    records(ids, _JOB_IDS, Output.IDS)


def _note_all(sentences: Iterable[str]) -> None:
    """Print sentences: below the table on a terminal, on stderr where a script reads the table."""
    notes = list(sentences)
    if not notes:
        return
    if view.on_terminal():
        heading()  # of a screen that has none
        for sentence in notes:
            paragraph(sentence, "  " if sentence.startswith(" ") else "", "    ")
    else:
        for sentence in notes:
            note(sentence)


def _times(opened: Database, chosen: Filter, windows: tuple[Window, Window], output: Output, limit: int | None) -> None:
    from dataclasses import replace

    from solidjq.diff import windows as diff_windows
    from solidjq.text import count_of

    now, before = windows
    difference = diff_windows.compare_windows(opened, chosen, now, before)
    changes = difference.changes[:limit]
    counts = Counter(change.kind for change in difference.changes)
    kinds = [f"{counts[kind]:,} {kind.value}" for kind in diff_windows.ChangeKind if counts[kind]]
    summary = f"{', '.join(kinds) or 'no difference'}; {count_of(difference.same, 'group')} about the same"
    times = f"{_spelled(now)} against {_spelled(before)}"
    if output is Output.IDS:
        risen = {diff_windows.ChangeKind.NEW, diff_windows.ChangeKind.GROWN}
        later = replace(chosen, since=now.since, until=now.until)
        _print_ids(opened, later, (change.group.name for change in changes if change.kind in risen))
    else:
        if output is Output.MARKDOWN and not view.current().fields:
            ticket_heading(f"Failed jobs of {times}: {summary}")
        in_words = output is Output.MARKDOWN
        records(changes, _change_fields(now, before, in_words=in_words), output, head=summary if drawn(output) else "")
    if len(difference.changes) > len(changes):
        note(f"{len(difference.changes) - len(changes):,} more; see --limit")
    if drawn(output):
        paragraph(times)
        if there := [change.group.name for change in changes if change.now]:
            next_commands(f"failed diff {there[0]}", f"failed list {there[0]}")
    elif output is Output.TABLE:
        note(f"{times}: {summary}")
    if output in {Output.TABLE, Output.MARKDOWN} and not difference.archive:
        note("failures that were retried since are not counted: there is no record of them; run: jq init")
    if difference.changes:
        raise typer.Exit(DIFFERENT)


def _beside(opened: Database, left: str, right: str, output: Output) -> None:
    from solidjq.diff import sides as diff_sides

    sides = [diff_sides.find_side(opened, text) for text in (left, right)]
    comparison = diff_sides.side_by_side(sides[0], sides[1], masking.mask())
    if output is Output.IDS:
        _print_side_ids(opened, sides)
    elif output is Output.TABLE and view.on_terminal():
        records(list(_wrapped(comparison, _width())), _cell_fields(left, right), output)
    else:
        records(comparison, _difference_fields(), output)
    if any(row.differs for row in comparison):
        raise typer.Exit(DIFFERENT)


def _print_side_ids(opened: Database, sides: Sequence[DiffSide]) -> None:
    from solidjq.diff import groups as diff_groups
    from solidjq.queue.failed import Filter

    ids = [job_id for side in sides for job_id in side.job_ids]
    groups = [side.group for side in sides if side.kind == "group" and side.group is not None]
    jobs = dict.fromkeys(ids) | dict.fromkeys(diff_groups.job_ids(opened, Filter(), groups) if groups else ())
    records(jobs, _JOB_IDS, Output.IDS)
