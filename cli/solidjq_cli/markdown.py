"""Markdown for tickets: texts of the database cannot become markup, links or mentions there."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from solidjq.text import one_line
from solidjq_cli.formats import Writers, flat

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from solidjq_cli.columns.column import Fields

T = TypeVar("T")

_SPECIAL = re.compile(r"([\\`*\[\]<>|&~#!]|(?<![^\W_])_|_(?![^\W_]))")
# GitHub and GitLab tell a person whose name follows an @, and make links of addresses and of #17.
_LIVE = re.compile(r"@|#(?=\d)|:(?=//)|(?<=www)\.", re.IGNORECASE)


def text(words: str) -> str:
    """Return a text as one line that shows just this text."""
    return _LIVE.sub(r"\g<0><!-- -->", _SPECIAL.sub(r"\\\1", one_line(words)))


def head(titles: Sequence[str], numbers: Collection[int] = ()) -> Iterator[str]:
    """Yield the two lines that begin a table; the columns of ``numbers`` are aligned to the right."""
    yield row([text(title) for title in titles])
    yield row(["---:" if at in numbers else "---" for at in range(len(titles))])


def row(cells: Sequence[str]) -> str:
    """Return a line of a table; its cells are Markdown already."""
    return f"| {' | '.join(cells)} |"


def value(of_field: Any) -> str:
    """Return the value of a field as Markdown: times to the second, names and counts as one would write them."""
    match of_field:
        case datetime():
            return _time(of_field)
        case [*names] if all(isinstance(name, str) for name in names):
            return ", ".join(text(flat(name)) for name in names)
        case {**counts} if all(type(count) is int for count in counts.values()):
            return ", ".join(f"{text(flat(name))} ({count:,})" for name, count in counts.items())
        case _:
            return text(flat(of_field))


def _time(of_field: datetime) -> str:
    return f"{of_field.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def write_table(items: Iterable[T], fields: Fields[T], out: TextIO) -> None:
    """Write items as a table, each as soon as it arrives."""
    out.writelines(f"{line}\n" for line in head([column.heading for column in fields.columns]))
    writers = Writers(empty="", text=text, time=_time, other=value)
    displays = [column.displayed for column in fields.columns]
    out.writelines(row([writers[type(cell := display(item))](cell) for display in displays]) + "\n" for item in items)


def write_details(items: Iterable[T], fields: Fields[T], out: TextIO) -> int:
    """Write each item as a list of its fields, without those that are empty; return how many there were."""
    count = 0
    for count, item in enumerate(items, 1):
        out.write("\n" if count > 1 else "")
        pairs = [(column.name, column.displayed(item)) for column in fields.columns]
        out.writelines(f"- **{text(name)}**: {value(shown)}\n" for name, shown in pairs if shown not in (None, "", []))
    return count
