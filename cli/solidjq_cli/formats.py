"""The formats for scripts: JSON, NDJSON, CSV, ids and tab-separated lines, each value complete and masked."""

from __future__ import annotations

import csv
import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from solidjq_cli import view
from solidjq_cli.ages import rfc3339
from solidjq_cli.view import Output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from solidjq_cli.columns import Column, Fields

T = TypeVar("T")

_encoded = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder for each row

# What makes a spreadsheet run a cell as a formula, full-width forms included; a signed number runs nothing.
_SIGN = r"[=+\-@\t\r＝＋－＠]"  # noqa: RUF001
FORMULA = re.compile(rf"{_SIGN}(?!\d+(?:\.\d+)?\Z)")
# In many countries a spreadsheet cuts lines at semicolons, those within the quotes of a cell, too.
_FORMULA_BEHIND = re.compile(rf"""(;[\s"]*)(?={_SIGN}(?!\d+(?:\.\d+)?(?:[;,]|\Z)))""")


def write(items: Iterable[T], fields: Fields[T], output: Output, out: TextIO) -> None:
    """Write items in a format for scripts, each as soon as it arrives; ``TABLE`` is tab-separated lines."""
    match output:
        case Output.IDS:
            for item in items:
                out.writelines(f"{number}\n" for number in fields.ids(item))
        case Output.JSON:
            _json(items, fields.columns, out)
        case Output.NDJSON:
            out.writelines(dumps(record) + "\n" for record in _records(items, fields.columns))
        case Output.CSV:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(column.name for column in fields.columns)
            writer.writerows([_csv_cell(column.value(item)) for column in fields.columns] for item in items)
        case _:
            _tab_separated(items, fields.columns, out)


def _json(items: Iterable[T], columns: Sequence[Column[T]], out: TextIO) -> None:
    separator = "[\n"
    for record in _records(items, columns):
        out.write(separator + dumps(record))
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def _tab_separated(items: Iterable[T], columns: Sequence[Column[T]], out: TextIO) -> None:
    out.write("\t".join(column.name for column in columns) + "\n")
    out.writelines("\t".join(flat(column.value(item)) for column in columns) + "\n" for item in items)


def _records(items: Iterable[T], columns: Sequence[Column[T]]) -> Iterator[dict[str, Any]]:
    """Yield what JSON has of each item. What most values are is decided here, since a list may have a million rows."""
    from solidjq.text import mask_secrets  # noqa: PLC0415

    masked = (lambda text: text) if view.current().show_arguments else mask_secrets
    readers = [(column.name, column.value) for column in columns]
    for item in items:
        record = {}
        for name, read in readers:
            value = read(item)
            kind = type(value)
            record[name] = (
                masked(value)
                if kind is str
                else value
                if value is None or kind is int or kind is float
                else rfc3339(value)
                if kind is datetime
                else [
                    masked(item) if type(item) is str else item if type(item) is int else plain(item) for item in value
                ]
                if kind is list
                else plain(value)
            )
        yield record


def plain(value: Any) -> Any:
    """Return a value as JSON has it, with secrets masked."""
    from solidjq.text import MASK, names_a_secret  # noqa: PLC0415

    shown = view.current().show_arguments
    match value:
        case datetime():
            return rfc3339(value)
        case str():
            return view.masked(value)
        case bytes():  # SQLite stores them in any column
            return view.masked(value.decode("utf-8", "backslashreplace"))
        case dict():
            return {
                view.masked(key): MASK if not shown and isinstance(item, str) and names_a_secret(key) else plain(item)
                for key, item in value.items()
            }
        case list():
            return [plain(item) for item in value]
        case _:
            return value


def dumps(value: Any) -> str:
    r"""Write JSON in which nothing can act on a terminal: what json leaves raw is escaped as ``\u009b``."""
    from solidjq.text import escape_json  # noqa: PLC0415

    return escape_json(_encoded(value))


def as_json(value: Any) -> str:
    """Return a value as one line of JSON, as ``-o json`` writes it."""
    return dumps(plain(value))


def _csv_cell(value: Any) -> str:
    """Return a value as a cell of CSV, with an apostrophe before a formula unless ``--csv-raw`` is given."""
    cell = flat(value)
    if view.current().csv_raw:
        return cell
    if ";" in cell:
        cell = _FORMULA_BEHIND.sub(r"\1'", cell)
    return f"'{cell}" if isinstance(value, str) and FORMULA.match(cell) else cell


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
