"""Each row of a list is written as its values are one by one, whatever they are."""

import csv
import io
from datetime import UTC, datetime, timedelta, timezone
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pymysql.constants import FIELD_TYPE
from pymysql.converters import convert_datetime

from solidjq.database.times import mysql_conversions
from solidjq_cli import formats, view
from solidjq_cli.ages import rfc3339
from solidjq_cli.columns.column import Column, Fields
from solidjq_cli.view import Output

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.one_of(st.just(UTC), ZONES))  # noqa: DTZ001
TEXTS = st.text() | st.sampled_from(
    ["token=abc", "postgres://u:p@h/db", "=1+1", "a;=1+1", "\x1b[31m", "\x7f", "\u202e", " a\n\tb ", "a | *b* @me #17"]
)
NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | TIMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("password"), inner, max_size=3),
    max_leaves=5,
)
VALUES = NESTED | st.binary(max_size=5)


def written(values: list[Any], output: Output) -> str:
    columns: tuple[Column[list[Any]], ...] = tuple(Column(f"c{at}", itemgetter(at)) for at in range(len(values)))
    out = io.StringIO(newline="")
    formats.write([values], Fields(columns, lambda _: []), output, out)
    return out.getvalue()


def test_a_count_has_commas_for_people_and_none_in_data() -> None:
    fields = Fields((Column("jobs", itemgetter(0), "JOBS", counts=True),), lambda _: [])
    out = io.StringIO()
    formats.write([[12345]], fields, Output.NDJSON, out)
    assert out.getvalue() == '{"jobs": 12345}\n'
    assert [column.displayed([12345]) for column in fields.columns] == ["12,345"]


@pytest.mark.parametrize("shown", [False, True])
@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=3))
@example([None, True, 5, "token=abc", datetime(2026, 11, 23, 4, 40, tzinfo=UTC), {"password": "x", "n": [1.5, "b=c"]}])
def test_a_row_is_its_values(shown: bool, values: list[Any]) -> None:  # noqa: FBT001
    view.begin()
    view.current().show_arguments = shown
    line = formats.as_json({f"c{at}": value for at, value in enumerate(values)})
    assert written(values, Output.NDJSON) == f"{line}\n"
    assert written(values, Output.JSON) == f"[\n{line}\n]\n"
    flat = [formats.flat(value) for value in values]
    assert written(values, Output.TABLE).split("\n", 1)[1] == "\t".join(flat) + "\n"
    view.current().csv_raw = True
    assert list(csv.reader(io.StringIO(written(values, Output.CSV))))[1:] == [flat]
    view.current().csv_raw = False
    for value, raw, cell in zip(
        values, flat, list(csv.reader(io.StringIO(written(values, Output.CSV))))[1], strict=True
    ):
        assert cell.replace("'", "") == raw.replace("'", "")
        assert not (isinstance(value, str) and formats.FORMULA.match(cell))


def test_a_field_that_is_named_twice_is_one_key() -> None:
    view.begin()
    out = io.StringIO()
    job_id: Column[int] = Column("job_id", int)
    formats.write([7], Fields((job_id, job_id), lambda _: []), Output.NDJSON, out)
    assert out.getvalue() == '{"job_id": 7}\n'


@given(TIMES)
def test_a_time_is_written_as_in_iso_8601(time: datetime) -> None:
    assert rfc3339(time) == time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@given(st.datetimes(), st.integers(0, 6))
def test_a_time_of_mysql_is_read_as_its_driver_reads_it(time: datetime, digits: int) -> None:
    text = f"{time.isoformat(' ', 'microseconds')[:19]}{f'.{time.microsecond:06}'[: digits + 1] if digits else ''}"
    for kind in (FIELD_TYPE.DATETIME, FIELD_TYPE.TIMESTAMP):
        assert mysql_conversions()[kind](text) == convert_datetime(text)


@pytest.mark.parametrize("text", ["0000-00-00 00:00:00", "2026-00-10 00:00:00", "2026-02-31 01:01:01.000000"])
def test_what_is_no_time_in_mysql_is_text(text: str) -> None:
    assert mysql_conversions()[FIELD_TYPE.DATETIME](text) == text
