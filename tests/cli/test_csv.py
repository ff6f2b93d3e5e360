"""A spreadsheet that opens the CSV of a list runs nothing that somebody wrote into a row."""

import csv
import io

import pytest

from solidjq import Database
from solidjq.rails.error_text import missing_error
from solidjq_cli.formats import FORMULA
from support.program import Shell
from support.queue import NewJob, fail

HOSTILE = ["=HYPERLINK(A1)", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1+1", "\r=1+1", " =1+1", "＝1+1"]  # noqa: RUF001
HARMLESS = ["ReportJob", "-7", "+7.5", "a=b", "'quoted"]


@pytest.mark.sqlite_only
def test_a_cell_that_a_spreadsheet_would_run_is_text(database: Database, shell: Shell) -> None:
    fail(database, *(NewJob(class_name=name) for name in (*HOSTILE, *HARMLESS)), error=missing_error())
    names = read_names(shell.run("failed", "list", "-o", "csv").stdout)
    assert [name for name in names if FORMULA.match(name)] == []
    assert {name for name in names if name.startswith("'")} == {f"'{name.strip()}" for name in HOSTILE} | {"'quoted"}
    assert set(HARMLESS) <= set(names)
    raw = read_names(shell.run("--csv-raw", "failed", "list", "-o", "csv").stdout)
    assert set(raw) == {name.strip() for name in (*HOSTILE, *HARMLESS)}
    shell.environment["JQ_CSV_RAW"] = "1"
    assert read_names(shell.run("failed", "list", "-o", "csv").stdout) == raw


@pytest.mark.sqlite_only
def test_no_cell_begins_a_formula_where_semicolons_end_cells(database: Database, shell: Shell) -> None:
    """A spreadsheet set to German cuts a line at each semicolon, within quotes that do not begin a cell too."""
    hostile = ["a;=HYPERLINK(A1)", 'a;"=1+1', "a; @SUM(A1)", "a;-2+3;x", "a;=1,2", "a;-7"]
    fail(database, *(NewJob(class_name=name) for name in hostile), error=missing_error())
    done = shell.run("failed", "list", "-o", "csv")
    cells = [cell.strip('" ') for line in done.stdout.splitlines() for cell in line.split(";")]
    assert len(cells) > 2 * len(hostile)
    assert [cell for cell in cells if FORMULA.match(cell.split(",")[0])] == []
    assert "a;-7" in done.stdout


def read_names(text: str) -> list[str]:
    return [row["class_name"] for row in csv.DictReader(io.StringIO(text))]
