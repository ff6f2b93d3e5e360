"""The formats for scripts: JSON, NDJSON, CSV, ids and tab-separated lines, each value complete and masked."""

from __future__ import annotations

import csv
import json
import re
from datetime import datetime
from functools import lru_cache
from json.encoder import encode_basestring
from math import isfinite
from types import NoneType
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from solidjq_cli import view
from solidjq_cli.ages import rfc3339
from solidjq_cli.view import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from solidjq_cli.columns.column import Column, Fields

T = TypeVar("T")

_encoded = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder for each value

# What makes a spreadsheet run a cell as a formula, full-width forms included; a signed number runs nothing.
_SIGN = r"[=+\-@\t\r＝＋－＠]"  # noqa: RUF001
FORMULA = re.compile(rf"{_SIGN}(?!\d+(?:\.\d+)?\Z)")
# In many countries a spreadsheet cuts lines at semicolons, those within the quotes of a cell, too.
_FORMULA_BEHIND = re.compile(rf"""(;[\s"]*)(?={_SIGN}(?!\d+(?:\.\d+)?(?:[;,]|\Z)))""")


class Writers(dict[type, "Callable[[Any], str]"]):
    """The writer of each type of value. A list may have a million rows, so options are read once, not for each value.

    Secrets are masked before ``text`` gets them. ``other`` masks what it writes itself. A tuple holds texts: what
    was written of the last few is kept, since many rows have the same.
    """

    def __init__(
        self, *, empty: str, text: Callable[[str], str], time: Callable[[datetime], str], other: Callable[[Any], str]
    ) -> None:
        from solidjq.text import mask_secrets  # noqa: PLC0415

        self[NoneType] = lambda _: empty
        self[int] = str
        self[str] = text if view.current().show_arguments else lambda value: text(mask_secrets(value))
        self[datetime] = time
        self[tuple] = lru_cache(maxsize=100)(other)
        self._other = other

    def __missing__(self, kind: type) -> Callable[[Any], str]:
        return self._other


def write(items: Iterable[T], fields: Fields[T], output: Output, out: TextIO) -> None:
    """Write items in a format for scripts, each as soon as it arrives; ``TABLE`` is tab-separated lines."""
    from solidjq.text import one_line  # noqa: PLC0415

    names = [column.name for column in fields.columns]
    match output:
        case Output.IDS:
            out.writelines(f"{number}\n" for item in items for number in fields.ids(item))
        case Output.JSON:
            _json(_objects(items, fields.columns), out)
        case Output.NDJSON:
            out.writelines(f"{line}\n" for line in _objects(items, fields.columns))
        case Output.CSV:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(names)
            writer.writerows(_rows(items, fields.columns, _csv_writers()))
        case _:
            out.write("\t".join(names) + "\n")
            tabs = Writers(empty="", text=one_line, time=rfc3339, other=flat)
            out.writelines("\t".join(row) + "\n" for row in _rows(items, fields.columns, tabs))


def _json(lines: Iterable[str], out: TextIO) -> None:
    separator = "[\n"
    for line in lines:
        out.write(separator + line)
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def _objects(items: Iterable[T], columns: Sequence[Column[T]]) -> Iterator[str]:
    """Yield each item as an object of JSON, as ``dumps`` would write it."""
    from solidjq.rails.masking import Harmless  # noqa: PLC0415
    from solidjq.text import escape_json  # noqa: PLC0415

    masking = _masking()
    writers = Writers(
        empty="null",
        text=encode_basestring,
        time=lambda value: f'"{rfc3339(value)}"',
        other=lambda value: _encoded(masking(value)),
    )
    writers[Harmless] = _encoded
    other = writers[object]
    writers[float] = lambda value: repr(value) if isfinite(value) else other(value)
    writers[list] = lambda value: str(value) if all(type(one) is int for one in value) else other(value)
    readers = {_encoded(column.name): column.value for column in columns}  # a field may be named twice
    for item in items:
        # Most fields of a job are empty: that needs no look-up.
        pairs = [
            f"{name}: null" if (value := read(item)) is None else f"{name}: {writers[type(value)](value)}"
            for name, read in readers.items()
        ]
        yield escape_json(f"{{{', '.join(pairs)}}}")


def _rows(items: Iterable[T], columns: Sequence[Column[T]], writers: Writers) -> Iterator[list[str]]:
    readers = [column.value for column in columns]
    for item in items:
        yield [writers[type(value := read(item))](value) for read in readers]


def plain(value: Any) -> Any:
    """Return a value as JSON has it, with secrets masked."""
    return _masking()(value)


def _masking() -> Callable[[Any], Any]:
    """Return ``plain`` for many values: the options are read once."""
    from solidjq.text import MASK, mask_secrets, names_a_secret  # noqa: PLC0415

    shown = view.current().show_arguments
    masked = str if shown else mask_secrets

    def masking(value: Any) -> Any:  # noqa: PLR0911  (one case a type)
        if type(value) is str:  # quicker than a case, and most are texts
            return masked(value)
        match value:
            case str():
                return masked(value)
            case int() | float() | None:
                return value
            case dict():
                return {
                    masked(key): MASK if not shown and isinstance(item, str) and names_a_secret(key) else masking(item)
                    for key, item in value.items()
                }
            case list() | tuple():
                return [masking(item) for item in value]
            case datetime():
                return rfc3339(value)
            case bytes():  # SQLite stores them in any column
                return masked(value.decode("utf-8", "backslashreplace"))
            case _:
                return value

    return masking


def dumps(value: Any) -> str:
    r"""Write JSON in which nothing can act on a terminal: what json leaves raw is escaped as ``\u009b``."""
    from solidjq.text import escape_json  # noqa: PLC0415

    return escape_json(_encoded(value))


def as_json(value: Any) -> str:
    """Return a value as one line of JSON, as ``-o json`` writes it."""
    return dumps(plain(value))


def _csv_writers() -> Writers:
    """Return the writers of CSV cells: an apostrophe stands before a formula unless ``--csv-raw`` is given."""
    from solidjq.text import one_line  # noqa: PLC0415

    if view.current().csv_raw:
        return Writers(empty="", text=one_line, time=rfc3339, other=flat)

    def harmless(value: str) -> str:
        cell = _between(one_line(value))
        return f"'{cell}" if FORMULA.match(cell) else cell

    return Writers(empty="", text=harmless, time=rfc3339, other=lambda value: _between(flat(value)))


def _between(cell: str) -> str:
    """Return a cell with an apostrophe before each formula behind a semicolon."""
    return _FORMULA_BEHIND.sub(r"\1'", cell) if ";" in cell else cell


def flat(value: Any) -> str:
    """Write a value on one line, complete."""
    from solidjq.text import one_line  # noqa: PLC0415

    match plain(value):
        case None:
            return ""
        case bool(truth):
            return "true" if truth else "false"
        case str(text):
            return one_line(text)
        case dict() | list() as nested:
            return dumps(nested)
        case other:
            return str(other)
