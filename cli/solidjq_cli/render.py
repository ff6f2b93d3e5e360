"""The one writer to stdout: screens and tables for people; json, ndjson, csv and ids for scripts.

A list is one call, whatever the format; ``head`` and ``below`` are for people only::

    records(failures, failure_fields(), output, head=lambda shown: f"{shown} of {all} failed jobs", empty="none")
    next_commands(f"failed list --page-after {last}", lead="446 older")

A screen that tells a story is drawn where people read, and is ``records`` or ``details`` for scripts::

    if not drawn(output):
        records(...)
        return
    with page():                                    # one page: what is longer than the terminal goes to a pager
        heading("9 incidents in 7 days, 4 with jobs that still wait")     # the database is named at the right
        table(
            [Head("INCIDENT"), Head("WAITING", right=True), Head("CLASSES", gives=True), Head("WHY", flows=True)],
            [["d9", "10", Names(("MailJob", "PingJob")), Words("host lost", "error")]],
        )
        paragraph("alone when its process crashed", first="because   ")   # broken between words
        lines(timeline)                                                   # lines that are laid out already
        next_commands("incidents show d9", "retry --safe --dry-run")      # the last line, by the program's own name

Text that comes from a database may be given as it is: each of these escapes control characters and masks secrets.
``when`` (a column of ages) and ``since`` (a sentence) in ``ages`` write times; both follow ``--local``. ``names`` and
``short_hosts`` in ``flow`` write ``X +11`` and drop the hosts' common domain. ``count_of`` in ``solidjq.text`` is
singular and plural; other numbers in sentences are ``f"{number:,}"``, ids never. ``styled`` in ``view`` colours words.
"""

from __future__ import annotations

import sys
from datetime import datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from solidjq_cli import formats, pager, view
from solidjq_cli.formats import flat
from solidjq_cli.pager import page
from solidjq_cli.view import Output, drawn, ids_suffice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from solidjq_cli.columns.column import Column, Fields
    from solidjq_cli.grid import Cell, Head

__all__ = [
    "Keyed",
    "Output",
    "details",
    "drawn",
    "heading",
    "ids_suffice",
    "lines",
    "next_commands",
    "note",
    "page",
    "paragraph",
    "records",
    "table",
    "ticket_heading",
]

T = TypeVar("T")

BLOCK = 1000  # rows by which the widths of a table's columns are chosen
IN_LINES = {"backtrace", "breaks", "outcome"}  # fields whose parts get a line each among the details
LABEL = 20  # cells of a name among the details


def records(
    items: Iterable[T],
    fields: Fields[T],
    output: Output,
    *,
    empty: str | Callable[[], str] = "",
    head: str | Callable[[int], str] = "",
) -> int:
    """Print items, each as soon as it arrives unless columns must line up; return how many there were.

    ``head`` is the heading of a table, or makes one of the number of its rows: all, or the first ``BLOCK``. ``empty``
    is printed on stderr where a person would otherwise see nothing; a function is called only then. Raises
    UsageError for an unknown field.
    """
    all_fields, fields = fields, _chosen(fields, output)
    if output in {Output.TABLE, Output.MARKDOWN} and not view.current().fields:
        fields = fields.shown(wide=view.current().wide)
    counted = _Counted(_sorted(_started(items), all_fields))
    headed = ""
    if output is Output.TABLE and view.for_people():
        with page():
            headed = _table(counted, fields.columns, head, _key_of(all_fields))
    elif output is Output.MARKDOWN:
        from solidjq_cli import markdown  # noqa: PLC0415  (only this format needs it)

        markdown.write_table(counted, fields, sys.stdout)
    else:
        formats.write(counted, fields, output, sys.stdout)
    sys.stdout.flush()
    silent = output is Output.TABLE and not counted.count and not headed
    if silent and (words := empty if isinstance(empty, str) else empty()):
        note(words)
    return counted.count


def details(items: Iterable[T], fields: Fields[T], output: Output) -> int:
    """Print every field of each item, one below the other; for scripts as ``records`` does."""
    if output is Output.MARKDOWN:
        from solidjq_cli import markdown  # noqa: PLC0415  (only this format needs it)

        return markdown.write_details(_started(items), _chosen(fields, output), sys.stdout)
    if output is not Output.TABLE:
        return records(items, fields, output)
    fields = _chosen(fields, output)
    count = 0
    with page():
        for item in _started(items):
            if count:
                pager.write("")
            else:
                heading()
            count += 1
            for column in fields.columns:
                value = column.displayed(item)
                if value is None or value in ([], ""):
                    continue
                if isinstance(value, list) and all(isinstance(part, str) for part in value) and column.name in IN_LINES:
                    pager.write(f"{column.name}:")
                    for part in value:
                        _labelled("  ", flat(part))
                else:
                    _labelled(f"{column.name + ':':<{LABEL}}", _detail_text(value))
    sys.stdout.flush()
    return count


def _labelled(label: str, text: str) -> None:
    """Print a value beside its name, as it is if it fits; else broken between words."""
    from solidjq_cli import flow  # noqa: PLC0415

    width = view.width()
    fits = width is None or flow.cells(label + text) <= width
    for line in [label + text] if fits else flow.wrap(text, width, label):
        pager.write(line)


def heading(text: str = "") -> None:
    """Print a screen's first line: what it shows, and at the right which database it comes from.

    The database is named once a run. Where no person reads, nothing is printed.
    """
    from solidjq_cli import flow, session  # noqa: PLC0415  (which are not needed off a terminal)

    if view.for_people():
        for line in flow.heading(_clean(text), [_clean(place) for place in session.places()], view.width()):
            pager.write(view.styled(line, "bold") if text else line)


def ticket_heading(text: str) -> None:
    """Print the sentence above a Markdown table: what the table shows, and of which database."""
    from solidjq_cli import markdown, session  # noqa: PLC0415  (only this format needs it)

    place = "".join(f" ({name})" for name in session.places()[:1])
    sys.stdout.write(f"{markdown.text(view.masked(text + place))}\n\n")


class Keyed(NamedTuple):
    """A row of a table and its key: a job's id, the name of a queue or an incident."""

    key: str
    cells: Sequence[Cell]


def table(heads: Sequence[Head], rows: Iterable[Sequence[Cell] | Keyed]) -> None:
    """Print a table for people; its columns share the width by need (see ``grid``)."""
    from solidjq_cli import grid  # noqa: PLC0415

    keyed = (row if isinstance(row, Keyed) else Keyed("", row) for row in rows)
    cleaned = (Keyed(row.key, [_clean_cell(cell) for cell in row.cells]) for row in keyed)
    first = list(islice(cleaned, BLOCK))
    plan = grid.plan(heads, [row.cells for row in first], None if view.current().wide else view.width())
    if any(head.title for head in heads):
        pager.write(view.styled(plan.title(), "bold"))
    for row in chain(first, cleaned):
        pager.write_row(pager.Row(row.key, tuple(plan.lines([row.cells], view.styled))))


def paragraph(text: str, first: str = "", rest: str | None = None, style: str = "") -> None:
    """Print text for a person, on a terminal broken between words.

    The first line begins with ``first``, the others with ``rest``, or as many blanks.
    """
    from solidjq_cli import flow  # noqa: PLC0415

    for line in flow.wrap(_clean(text), view.width(), first, rest):
        pager.write(view.styled(line, style))


def lines(text: Iterable[str]) -> None:
    """Print lines of text for a person; control characters in them are escaped."""
    from solidjq.text import printable  # noqa: PLC0415

    with page():
        heading()
        for line in text:
            pager.write(view.masked(printable(line)))
    sys.stdout.flush()


def next_commands(*commands: str, lead: str = "next") -> None:
    """Print the last line of a screen: commands to go on with, under the name that this program was called by.

    Each begins without that name: ``incidents show d9``. ``lead`` stands before them. Lines break between commands
    only. Where no person reads, nothing is printed.
    """
    from solidjq_cli import flow  # noqa: PLC0415
    from solidjq_cli.arguments import program_name  # noqa: PLC0415

    if commands and view.for_people():
        parts = [_clean(f"{program_name()} {command}") for command in commands]
        for line in flow.fill(parts, view.width(), f"{lead}  ", gap=" | "):
            pager.write_hint(line)


def note(text: str) -> None:
    """Print a message for a person on stderr, so that a script's stdout contains only data."""
    pager.note(text)


# -- which items and fields -------------------------------------------------------------------------------------------


def _started(items: Iterable[T]) -> Iterator[T]:
    """Fetch the first item before any output: if that fails, no heading is printed."""
    rest = iter(items)
    first = list(islice(rest, 1))
    return chain(first, rest)


def _sorted(items: Iterable[T], fields: Fields[T]) -> Iterable[T]:
    """Sort by the field of ``--sort``, if there is one; items without a value come last."""
    if (order := view.current().sort) is None:
        return items
    column = _named(order.removeprefix("-"), fields, "--sort")

    def key(item: T) -> Any:
        value = column.value(item)
        return value if isinstance(value, (int, float, datetime)) else flat(value)

    rows = list(items)
    valued = [item for item in rows if column.value(item) is not None]
    return [
        *sorted(valued, key=key, reverse=order.startswith("-")),
        *(item for item in rows if column.value(item) is None),
    ]


def _chosen(fields: Fields[T], output: Output) -> Fields[T]:
    """Return the fields of ``--fields``, or all."""
    options = view.current()
    if options.fields:
        if output is Output.IDS:
            from solidjq.errors import UsageError  # noqa: PLC0415

            raise UsageError("-o ids prints ids alone; leave --fields out")
        return fields.of([_named(name, fields, "--fields") for name in options.fields])
    return fields


def _named(name: str, fields: Fields[T], option: str) -> Column[T]:
    for column in fields.columns:
        if column.name == name:
            return column
    from solidjq.errors import UsageError  # noqa: PLC0415

    raise UsageError(f"{option}: no field {name!r}; the fields: {', '.join(c.name for c in fields.columns)}")


class _Counted:
    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.count += 1
            yield item


# -- tables of items --------------------------------------------------------------------------------------------------


def _key_of(fields: Fields[T]) -> Column[T] | None:
    """Return the field that is the key of each row for ``jq top``; None on a terminal or in a pipe."""
    host = view.host()
    return next((column for column in fields.columns if host is not None and column.name == host.key), None)


def _table(
    items: Iterable[T], columns: Sequence[Column[T]], head: str | Callable[[int], str], key: Column[T] | None
) -> str:
    """Print a heading and, if there are any items, a table below; return the text of the heading."""
    rest = iter(items)
    rows = list(islice(rest, BLOCK))
    text = head if isinstance(head, str) else head(len(rows))
    heading(text)
    if not rows:
        return text
    shown = [column for column in columns if not (column.optional and all(_is_empty(column, row) for row in rows))]
    hosts = _short_hosts(rows, shown)
    table(
        [_head(column, rows) for column in shown],
        (
            Keyed("" if key is None else str(key.value(item)), [_cell(item, column, hosts) for column in shown])
            for item in chain(rows, rest)
        ),
    )
    return text


def _is_empty(column: Column[T], item: T) -> bool:
    return column.value(item) in (None, "", [])


def _short_hosts(rows: Sequence[T], columns: Sequence[Column[T]]) -> dict[str, str]:
    from solidjq_cli.flow import short_hosts  # noqa: PLC0415

    values = (column.value(row) for column in columns if column.hosts for row in rows)
    return short_hosts({host for value in values for host in (value if isinstance(value, list) else [value]) if host})


def _head(column: Column[T], rows: Sequence[T]) -> Head:
    from solidjq_cli.grid import Head  # noqa: PLC0415

    values = [value for row in rows if (value := column.value(row)) is not None]
    numeric = all(isinstance(value, (int, float, datetime)) and not isinstance(value, bool) for value in values)
    return Head(
        column.heading,
        right=numeric and bool(values),
        gives=column.wide,
        least=column.least,
        leaves=column.leaves,
        flows=column.flows,
    )


def _cell(item: T, column: Column[T], hosts: Mapping[str, str]) -> Cell:
    from solidjq_cli.grid import Names, Words  # noqa: PLC0415

    value = column.displayed(item)
    if column.hosts and value:
        value = [hosts.get(host, host) for host in value] if isinstance(value, list) else hosts.get(value, value)
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value) and column.wide:
        return Names(tuple(map(flat, value)))
    text = _shown(value)
    return text if column.style is None else Words(text, column.style(item) or "")


def _shown(value: Any) -> str:
    """Write a value for a person: ages instead of times."""
    from solidjq_cli.ages import when  # noqa: PLC0415

    match value:
        case datetime():
            return when(value)
        case bool():
            return "yes" if value else "no"
        case None:
            return "-"
        case _:
            return _listed(value)


def _listed(value: Any) -> str:
    """Write a value for a person: names one after the other instead of JSON."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return ", ".join(map(flat, value))
    return "-" if value == [] else flat(value)


def _detail_text(value: Any) -> str:
    """Write a value beside its name: for people a time with its age, or with ``--local`` as a clock shows it."""
    from solidjq_cli.ages import moment  # noqa: PLC0415

    if view.for_people():
        match value:
            case datetime():
                return moment(value)
            case {**counts} if counts and all(type(count) is int for count in counts.values()):
                return ", ".join(f"{flat(name)} {count:,}" for name, count in counts.items())
    return _listed(value)


def _clean(text: str) -> str:
    from solidjq.text import one_line  # noqa: PLC0415

    return view.masked(one_line(text))


def _clean_cell(cell: Cell) -> Cell:
    from solidjq_cli.grid import Names, Words  # noqa: PLC0415

    if isinstance(cell, str):
        return _clean(cell)
    return Names(tuple(map(_clean, cell.several))) if isinstance(cell, Names) else Words(_clean(cell.text), cell.style)
