"""Lines as Textual draws them: the colours that ``view.styled`` wrote, and the part that fits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from textual.content import Content, Span

from solidjq.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# The codes of ``view.styled``; the terminal's own colours, so that they suit its background.
_STYLES = {"1": "bold", "2": "dim", "31": "ansi_red", "33": "ansi_yellow", "32": "ansi_green"}
_CODE = re.compile(r"\x1b\[(\d+)m")


def plain(line: str) -> str:
    """Return a line without its colours."""
    return _CODE.sub("", line)


def content(line: str) -> Content:
    """Return a line with its colours; whatever else a terminal would act on is escaped."""
    text, spans, style, began = "", [], "", 0
    for number, part in enumerate(_CODE.split(line)):
        if number % 2:
            if style and began < len(text):
                spans.append(Span(began, len(text), style))
            style, began = _STYLES.get(part, ""), len(text)
        else:
            text += printable(part)
    if style and began < len(text):
        spans.append(Span(began, len(text), style))
    return Content(text, spans=spans)


def paint(lines: Iterable[str]) -> Content:
    """Return lines, one below the other."""
    return Content("\n").join(map(content, lines))


def fit(lines: Sequence[str], room: int, rest: str) -> list[str]:
    """Return as many lines as there is room for; the last one counts the others; ``rest`` says how to see them."""
    if len(lines) <= room:
        return list(lines)
    return [*lines[: max(0, room - 1)], f"... {len(lines) - max(0, room - 1):,} more lines; {rest}"]
