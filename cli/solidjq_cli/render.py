"""The one writer to stdout: a table for people, or json, ndjson, csv and ids for scripts."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    from solidjq_cli.columns import Column, Fields

T = TypeVar("T")

csv_raw: ContextVar[bool] = ContextVar("csv_raw", default=False)
"""Whether cells of CSV are written as they are, also those that a spreadsheet would run as a formula."""

GAP = 2  # between the columns of a table
# What makes a spreadsheet run a cell as a formula, full-width forms included; a signed number runs nothing.
FORMULA = re.compile(r"[=+\-@\t\r＝＋－＠](?!\d+(?:\.\d+)?\Z)")  # noqa: RUF001
IN_LINES = {"backtrace", "breaks", "outcome"}  # fields whose parts get a line each among the details
NARROWEST = 4  # a wide column is not cut shorter than that


class Output(StrEnum):
    """The formats of ``-o``."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    IDS = "ids"


def records(items: Iterable[T], fields: Fields[T], output: Output, *, empty: str = "") -> int:
    """Print items, each as soon as it arrives unless columns must line up; return how many there were.

    ``empty`` is printed on stderr where a person would otherwise see nothing.
    """
    counted = _Counted(_started(items))
    out = sys.stdout
    match output:
        case Output.IDS:
            for item in counted:
                out.writelines(f"{number}\n" for number in fields.ids(item))
        case Output.JSON:
            _json(counted, fields.columns, out)
        case Output.NDJSON:
            out.writelines(_dumps(_record(item, fields.columns)) + "\n" for item in counted)
        case Output.CSV:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(column.name for column in fields.columns)
            writer.writerows([_csv_cell(column.value(item)) for column in fields.columns] for item in counted)
        case Output.TABLE if out.isatty():
            heading()
            _table(counted, fields.columns)
        case Output.TABLE:
            _tab_separated(counted, fields.columns, out)
    out.flush()
    if output is Output.TABLE and empty and not counted.count:
        note(empty)
    return counted.count


def details(items: Iterable[T], fields: Fields[T], output: Output) -> int:
    """Print every field of each item, one below the other; for scripts as ``records`` does."""
    if output is not Output.TABLE:
        return records(items, fields, output)
    count = 0
    for item in _started(items):
        if count:
            sys.stdout.write("\n")
        else:
            heading()
        count += 1
        for column in fields.columns:
            value = column.value(item) if column.words is None else column.words(item)
            if value is None or value in ([], ""):
                continue
            if isinstance(value, list) and all(isinstance(part, str) for part in value) and column.name in IN_LINES:
                sys.stdout.write(f"{column.name}:\n")
                sys.stdout.writelines(f"  {_flat(part)}\n" for part in value)
            else:
                when = f" ({age(value)})" if isinstance(value, datetime) and sys.stdout.isatty() else ""
                sys.stdout.write(f"{column.name + ':':<20}{_listed(value)}{when}\n")
    sys.stdout.flush()
    return count


def lines(text: Iterable[str]) -> None:
    """Print lines of text for a person; control characters in them are escaped."""
    from solidjq.text import mask_secrets, printable  # noqa: PLC0415

    heading()
    sys.stdout.writelines(f"{mask_secrets(printable(line))}\n" for line in text)
    sys.stdout.flush()


def as_json(value: Any) -> str:
    """Return a value as one line of JSON, as ``records`` writes it."""
    return _dumps(_plain(value))


def heading() -> None:
    """On a terminal, print once a run which database the lines below come from: operators use several terminals."""
    from solidjq.text import one_line  # noqa: PLC0415
    from solidjq_cli import session  # noqa: PLC0415  (which is not needed off a terminal)

    if sys.stdout.isatty() and (place := session.heading()):
        sys.stdout.writelines(f"{line}\n" for line in _fitted(one_line(place), shutil.get_terminal_size().columns))


def _fitted(place: str, width: int) -> list[str]:
    """Break the name of a place between words; of a file's path that is too long, keep the end."""
    name, bracket, access = place.rpartition(" (")
    room = width - len(bracket + access)
    if " " not in name and len(name) > room:
        name = f"…{name[1 - room :]}"
    return textwrap.wrap(name + bracket + access, width, break_long_words=False, break_on_hyphens=False)


def note(text: str) -> None:
    """Print a message for a person on stderr, so that a script's stdout contains only data."""
    from solidjq_cli.exits import say  # noqa: PLC0415

    say(text)


# -- formats ----------------------------------------------------------------------------------------------------------


def _started(items: Iterable[T]) -> Iterator[T]:
    """Fetch the first item before any output: if that fails, no heading is printed."""
    rest = iter(items)
    first = list(islice(rest, 1))
    return chain(first, rest)


class _Counted(Iterable[T]):
    def __init__(self, items: Iterable[T]) -> None:
        self._items = items
        self.count = 0

    def __iter__(self) -> Iterator[T]:
        for item in self._items:
            self.count += 1
            yield item


def _json(items: Iterable[T], columns: Sequence[Column[T]], out: TextIO) -> None:
    separator = "[\n"
    for item in items:
        out.write(separator + _dumps(_record(item, columns)))
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def _tab_separated(items: Iterable[T], columns: Sequence[Column[T]], out: TextIO) -> None:
    shown = [column for column in columns if column.title is not None]
    out.write("\t".join(column.name for column in shown) + "\n")
    out.writelines("\t".join(_flat(column.value(item)) for column in shown) + "\n" for item in items)


def _table(items: Iterable[T], columns: Sequence[Column[T]]) -> None:
    rows = list(items)
    if not rows:
        return
    from rich.console import Console  # noqa: PLC0415  (only where a table is drawn)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, markup=False, emoji=False)
    shown = [column for column in columns if column.title is not None]
    cells = [
        [Text(_cell(column.value(row)) if column.words is None else column.words(row)) for row in rows]
        for column in shown
    ]
    widths = [
        max(len(column.title or ""), *(cell.cell_len for cell in each))
        for column, each in zip(shown, cells, strict=True)
    ]
    # The columns marked wide share what the others leave; rich would shorten all columns alike, ids too.
    spare = console.width - sum(widths) - GAP * (len(shown) - 1)
    for at in sorted((at for at, column in enumerate(shown) if column.wide), key=lambda at: -widths[at]):
        shorter = max(min(widths[at], NARROWEST), widths[at] + min(spare, 0))
        spare += widths[at] - shorter
        for cell in cells[at]:
            cell.truncate(shorter, overflow="ellipsis")
    gap = GAP if spare >= 0 else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for column in shown:
        values = [column.value(row) for row in rows]
        numeric = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
        table.add_column(column.title or "", justify="right" if numeric else "left", no_wrap=True)
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    console.print(table)


# -- values -----------------------------------------------------------------------------------------------------------


def _record(item: T, columns: Sequence[Column[T]]) -> dict[str, Any]:
    return {column.name: _plain(column.value(item)) for column in columns}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, with secrets masked."""
    from solidjq.text import MASK, mask_secrets, names_a_secret  # noqa: PLC0415

    match value:
        case datetime():
            return rfc3339(value)
        case str():
            return mask_secrets(value)
        case bytes():  # SQLite stores them in any column
            return mask_secrets(value.decode("utf-8", "backslashreplace"))
        case dict():
            return {
                mask_secrets(key): MASK if isinstance(item, str) and names_a_secret(key) else _plain(item)
                for key, item in value.items()
            }
        case list():
            return [_plain(item) for item in value]
        case _:
            return value


def _dumps(value: Any) -> str:
    r"""Write JSON in which nothing can act on a terminal: what json leaves raw is escaped as ``\u009b``."""
    from solidjq.text import escape_json  # noqa: PLC0415

    return escape_json(json.dumps(value, ensure_ascii=False))


def _csv_cell(value: Any) -> str:
    """Return a value as a cell of CSV, with an apostrophe before a formula unless ``csv_raw``."""
    cell = _flat(value)
    return f"'{cell}" if isinstance(value, str) and not csv_raw.get() and FORMULA.match(cell) else cell


def _flat(value: Any) -> str:
    """Write a value on one line, complete."""
    from solidjq.text import one_line  # noqa: PLC0415

    match _plain(value):
        case None:
            return ""
        case bool(truth):
            return "true" if truth else "false"
        case str(text):
            return one_line(text)
        case dict() | list() as nested:
            return _dumps(nested)
        case other:
            return str(other)


def _cell(value: Any) -> str:
    """Write a value for a person: ages instead of times."""
    match value:
        case datetime() if sys.stdout.isatty():
            return age(value)
        case bool():
            return "yes" if value else "no"
        case None:
            return "-"
        case _:
            return _listed(value)


def _listed(value: Any) -> str:
    """Write a value for a person: names one after the other instead of JSON."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return ", ".join(map(_flat, value))
    return "-" if value == [] else _flat(value)


def rfc3339(time: datetime) -> str:
    """Write a time in UTC, with as many fraction digits as it needs."""
    text = time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return text.rstrip("0").rstrip(".") + "Z"


def age(time: datetime, now: datetime | None = None) -> str:
    """Write how long ago a time was, or how far ahead it is, in its largest unit."""
    distance = (now or datetime.now(UTC)) - time
    seconds = abs(distance) // timedelta(seconds=1)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            text = f"{seconds // size}{unit}"
            break
    else:
        text = f"{seconds}s"
    return f"in {text}" if distance < timedelta() else f"{text} ago"
