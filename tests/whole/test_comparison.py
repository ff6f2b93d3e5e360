"""The comparison with other tools: each of its marks is a source with a date, and each cell about another has one."""

import re

from support.paths import ROOT

PAGE = (ROOT / "docs" / "comparison.md").read_text()
TEXT, _, SOURCES = PAGE.partition("## Sources")
UNSOURCED = ("not found", "not looked for", "none: ", "a controller's work")


def test_each_mark_is_a_source_with_a_date_and_each_source_is_used() -> None:
    used = {mark for marks in re.findall(r"\[([A-Z]\d(?:, [A-Z]\d)*)\]", TEXT) for mark in marks.split(", ")}
    listed = re.findall(r"^\| ([A-Z]\d) \|.*\b\d{4}-\d\d-\d\d\b", SOURCES, re.MULTILINE)
    assert len(listed) == len(set(listed)) == SOURCES.count("\n| ") - 1
    assert used == set(listed)


def test_each_cell_about_another_tool_has_a_source() -> None:
    rows = [line.strip("|").split("|") for line in TEXT.splitlines() if line.startswith("| ")]
    cells = [cell.strip() for row in rows if row[0].strip() for cell in row[2:]]
    assert len(cells) > 60
    assert [cell for cell in cells if not re.search(r"\[[A-Z]\d", cell) and not cell.startswith(UNSOURCED)] == []
