"""A report as Markdown, for a ticket: texts of the database cannot become markup, links or mentions there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from solidjq.text import printable
from solidjq_cli import incident_report as report
from solidjq_cli.markdown import head, row, text
from solidjq_cli.timeline import picture

if TYPE_CHECKING:
    from collections.abc import Iterator

PICTURE_WIDTH = 100  # characters


def write(made: report.Report) -> str:
    """Return the report as Markdown."""
    return "\n".join(_lines(made)) + "\n"


def _lines(made: report.Report) -> Iterator[str]:
    yield f"# {text(made.title)}"
    for section in made.sections:
        yield ""
        yield f"## {text(section.title)}"
        for block in section.blocks:
            yield ""
            yield from _block(block)


def _block(block: report.Block) -> Iterator[str]:
    match block:
        case report.Paragraph(words):
            yield text(words)
        case report.Facts(pairs):
            yield from (f"- {f'**{text(label)}**: ' if label else ''}{text(words)}" for label, words in pairs)
        case report.ToDo(items):
            yield from (f"- [ ] {text(item)}" for item in items)
        case report.Table(heads, rows, numbers):
            yield from head(heads, numbers)
            yield from (row([text(cell) for cell in cells]) for cells in rows)
        case report.Code(words):
            yield from _fenced(words)
        case report.Timeline(lives, start, end):
            yield from _fenced("\n".join(picture(lives, start, end, PICTURE_WIDTH)))


def _fenced(words: str) -> Iterator[str]:
    """Yield a text between fences that it cannot close."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", words)), 3)
    yield fence
    yield from (printable(line) for line in words.splitlines())
    yield fence
