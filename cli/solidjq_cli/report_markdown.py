"""A report as Markdown, for a ticket: texts of the database cannot become markup, links or mentions there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from solidjq.text import one_line, printable
from solidjq_cli import incident_report as report
from solidjq_cli.timeline import picture

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PICTURE_WIDTH = 100  # characters
_SPECIAL = re.compile(r"([\\`*\[\]<>|&~#!]|(?<![^\W_])_|_(?![^\W_]))")
_MENTION = "@<!-- -->"  # GitHub and GitLab tell a person whose name follows the sign


def write(made: report.Report) -> str:
    """Return the report as Markdown."""
    return "\n".join(_lines(made)) + "\n"


def _lines(made: report.Report) -> Iterator[str]:
    yield f"# {_text(made.title)}"
    for section in made.sections:
        yield ""
        yield f"## {_text(section.title)}"
        for block in section.blocks:
            yield ""
            yield from _block(block)


def _block(block: report.Block) -> Iterator[str]:
    match block:
        case report.Paragraph(text):
            yield _text(text)
        case report.Facts(pairs):
            yield from (f"- {f'**{_text(label)}**: ' if label else ''}{_text(text)}" for label, text in pairs)
        case report.ToDo(items):
            yield from (f"- [ ] {_text(item)}" for item in items)
        case report.Table(heads, rows, numbers):
            yield _row(heads)
            yield _row(["---:" if at in numbers else "---" for at in range(len(heads))])
            yield from (_row([_text(cell) for cell in row]) for row in rows)
        case report.Code(text):
            yield from _fenced(text)
        case report.Timeline(lives, start, end):
            yield from _fenced("\n".join(picture(lives, start, end, PICTURE_WIDTH)))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _fenced(text: str) -> Iterator[str]:
    """Yield a text between fences that it cannot close."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    yield fence
    yield from (printable(line) for line in text.splitlines())
    yield fence


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", one_line(text)).replace("@", _MENTION)
