"""Markdown as plain text of 79 columns: how the docs become the topics of ``jq help``."""

from __future__ import annotations

import re
from textwrap import dedent, wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WIDTH = 79
_INDENT = "    "
_GAP = "  "
_LEAST_COLUMN = 8
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ITEM = re.compile(r"(?:[-*]|\d+\.) ")
_FENCE = "```"
_ESCAPED = re.compile(r"\\([\\`*<|+#-])")


def section(markdown: str, heading: str) -> str:
    """Return the section of this heading, with those below it. Raises LookupError if there is none."""
    lines = markdown.splitlines()
    in_code = False
    start = level = None
    for number, line in enumerate(lines):
        in_code ^= line.startswith(_FENCE)
        marks, _, title = line.partition(" ")
        if in_code or not marks or set(marks) != {"#"}:
            continue
        if start is None:
            if title == heading:
                start, level = number, len(marks)
        # The top of a page is what stands before its first section.
        elif level == 1 or len(marks) <= (level or 1):
            return "\n".join(lines[start:number])
    if start is None:
        raise LookupError(heading)
    return "\n".join(lines[start:])


def render(markdown: str) -> str:
    """Return the text, wrapped between words."""
    return "\n".join(_joined(_blocks(markdown.splitlines()))) + "\n"


def _joined(blocks: Iterator[list[str]]) -> Iterator[str]:
    for number, block in enumerate(blocks):
        if number:
            yield ""
        yield from block


def _blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield headings, paragraphs, lists, tables and blocks of code, each as its lines."""
    number = 0
    while number < len(lines):
        line = lines[number]
        if line.startswith(_FENCE):
            end = _end(lines, number, lambda each: not each.startswith(_FENCE))
            yield [f"{_INDENT}{each}".rstrip() for each in dedent("\n".join(lines[number + 1 : end])).split("\n")]
            end += 1
        elif line.startswith(_INDENT):
            end = _end(lines, number, lambda each: each.startswith(_INDENT) or not each.strip())
            yield "\n".join(lines[number:end]).rstrip().split("\n")
        elif line.startswith("|"):
            end = _end(lines, number, lambda each: each.startswith("|"))
            yield _table(lines[number:end])
        elif line.startswith("#"):
            end = number + 1
            title = _plain(line.lstrip("# "))
            yield [title.upper() if line.startswith(("# ", "## ")) else title]
        elif not line.strip() or line.startswith("<!--"):
            end = number + 1
        else:
            end = _end(lines, number, lambda each: bool(each.strip()) and not each.startswith(("#", "|", _FENCE)))
            yield [*_paragraph(lines[number:end])]
        number = end


def _end(lines: Sequence[str], start: int, belongs: Callable[[str], bool]) -> int:
    """Return the number of the first line behind ``start`` that does not belong to the block that begins there."""
    return next((number for number in range(start + 1, len(lines)) if not belongs(lines[number])), len(lines))


def _paragraph(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a paragraph; what begins with a mark is an item of a list, its lines further in."""
    items: list[str] = []
    for line in lines:
        if _ITEM.match(line) or not items:
            items.append(line.strip())
        else:
            items[-1] += f" {line.strip()}"
    for item in items:
        mark = _ITEM.match(item)
        further = " " * len(mark[0]) if mark else ""
        yield from wrap(_plain(item), WIDTH, subsequent_indent=further, break_long_words=False, break_on_hyphens=False)


def _plain(text: str) -> str:
    """Leave out the marks of emphasis, code and links."""
    text = _LINK.sub(r"\1", text.replace("<br>", " "))
    parts = re.split(r"(`[^`]*`)", text)
    parts = [
        part[1:-1].replace(r"\|", "|")
        if part.startswith("`")
        else _ESCAPED.sub(r"\1", re.sub(r"(?<!\\)\*\*", "", part))
        for part in parts
    ]
    return "".join(parts)


def _table(lines: Sequence[str]) -> list[str]:
    rows = [
        [_plain(cell.strip()) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        for line in lines
        if set(line) - set("|-: ")
    ]
    widths = _widths(rows)
    shown = []
    for number, row in enumerate(rows):
        cells = [wrap(cell, width, break_on_hyphens=False) or [""] for cell, width in zip(row, widths, strict=False)]
        height = max(map(len, cells))
        for line in range(height):
            parts = [
                (cell[line] if line < len(cell) else "").ljust(width) for cell, width in zip(cells, widths, strict=True)
            ]
            shown.append(_GAP.join(parts).rstrip())
        if not number:
            shown.append(_GAP.join("-" * width for width in widths))
    return shown


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of each column: what it needs, or, where that is too much for all, the widest give first."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=False)]
    room = WIDTH - len(_GAP) * (len(widths) - 1)
    while sum(widths) > room:
        widest = widths.index(max(widths))
        if widths[widest] <= _LEAST_COLUMN:
            break
        widths[widest] -= 1
    return widths
