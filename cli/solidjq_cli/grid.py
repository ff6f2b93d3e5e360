"""A table for people: columns share a width by need, and nothing that must be whole is cut.

Pure: ``plan`` chooses the widths from the first rows, ``Plan.lines`` draws any rows by them.

1. The columns that may be cut (``gives``) are narrowed, the widest first, and evenly.
2. If that is not enough, columns leave in their order (``leaves``: 1 goes first).
3. A reason (``flows``) is broken between words in its column; where that has too little room, it stands below its row.
4. Headings, ids, numbers and all other cells are never cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from solidjq_cli.flow import GAP, cells, cut, least_of_names, names, pad, wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ENOUGH = 14  # cells that a cut column keeps while other columns can still leave
NARROWEST = 6  # cells that it keeps when no other column can leave
FLOW_ENOUGH = 30  # cells: narrower, a column of sentences cannot be read
INDENT = "    "  # of sentences that stand below their row


class Words(NamedTuple):
    """A cell of text with a style: ``error``, ``warning``, ``good``, ``faint``, ``bold``; see ``styles``."""

    text: str
    style: str = ""


class Names(NamedTuple):
    """A cell of several names, drawn as far as there is room: ``worker-1, worker-2``, ``worker-1 +19``."""

    several: tuple[str, ...]


Cell = str | Words | Names


@dataclass(frozen=True, slots=True)
class Head:
    """A column: its title, and how it behaves where the width does not suffice for all."""

    title: str
    right: bool = False  # numbers and ages
    gives: bool = False  # may be cut, with an ellipsis
    least: int = 0  # cells that it keeps then; 0 for ``ENOUGH``, and at last ``NARROWEST``
    leaves: int = 0  # the order in which columns leave; 0 stays
    flows: bool = False  # sentences, broken between words


@dataclass(frozen=True, slots=True)
class Plan:
    """Which columns are drawn, how wide each is, and which stand below their row."""

    heads: tuple[Head, ...]
    shown: tuple[int, ...]
    widths: tuple[int, ...]
    below: tuple[int, ...]
    gap: int
    width: int | None

    def title(self) -> str:
        """Return the line with the titles; empty if no column has one."""
        return self._line([self.heads[at].title for at in self.shown])

    def lines(self, rows: Iterable[Sequence[Cell]], styled: Callable[[str, str], str]) -> Iterator[str]:
        """Yield the lines of rows; ``styled`` colours a text that is padded already."""
        for row in rows:
            broken = [self._cell(row[at], at, width) for at, width in zip(self.shown, self.widths, strict=True)]
            styles = [cell.style if isinstance(cell := row[at], Words) else "" for at in self.shown]
            for number in range(max(map(len, broken), default=1)):
                parts = [part[number] if number < len(part) else "" for part in broken]
                yield self._line(parts, styles, styled)
            for at in self.below:
                if text := text_of(row[at]):
                    style = cell.style if isinstance(cell := row[at], Words) else ""
                    yield from (INDENT + styled(line.strip(), style) for line in wrap(text, self.width, INDENT, INDENT))

    def _cell(self, cell: Cell, at: int, width: int) -> list[str]:
        if isinstance(cell, Names):
            return [names(cell.several, None if self.width is None else width)]
        text = text_of(cell)
        if self.width is None or cells(text) <= width:
            return [text]
        if self.heads[at].flows:
            return wrap(text, width)
        return [cut(text, width) if self.heads[at].gives else text]

    def _line(
        self, parts: Sequence[str], styles: Sequence[str] = (), styled: Callable[[str, str], str] | None = None
    ) -> str:
        line = ""
        last = max((number for number, part in enumerate(parts) if part), default=0)
        for number, (at, part, width) in enumerate(zip(self.shown, parts, self.widths, strict=True)):
            if number > last:
                break
            left = self.heads[at].right or number < last
            text = pad(part, width, right=self.heads[at].right) if left else part
            style = styles[number] if styles else ""
            line += (styled(text, style) if styled and style else text) + (" " * self.gap if number < last else "")
        return line


def plan(heads: Sequence[Head], rows: Sequence[Sequence[Cell]], width: int | None) -> Plan:
    """Choose which columns are drawn and how wide, from these rows."""
    needs = [max([cells(head.title), *(_need(row[at]) for row in rows)]) for at, head in enumerate(heads)]
    most = [max([cells(head.title), *(_most(row[at]) for row in rows)]) for at, head in enumerate(heads)]
    shown, below = list(range(len(heads))), []
    if width is None:
        return Plan(tuple(heads), tuple(shown), tuple(most), (), GAP, None)

    def floors(enough: int) -> list[int]:
        return [
            min(need, max(cells(head.title), FLOW_ENOUGH if head.flows else head.least or enough))
            if head.gives or head.flows
            else need
            for head, need in zip(heads, needs, strict=True)
        ]

    def fits(least: Sequence[int], gap: int = GAP) -> bool:
        return sum(least[at] for at in shown) + gap * (len(shown) - 1) <= width

    enough = floors(ENOUGH)
    leaving = sorted((at for at, head in enumerate(heads) if head.leaves), key=lambda at: heads[at].leaves)
    while leaving and not fits(enough):
        shown.remove(leaving.pop(0))
    gap = GAP
    if not fits(enough):
        for at in [at for at in shown if heads[at].flows and len(shown) > 1]:
            shown.remove(at)
            below.append(at)
        enough = enough if fits(enough) else floors(NARROWEST)
        gap = GAP if fits(enough) else 1
    room = width - gap * (len(shown) - 1)
    widths = _shared([needs[at] for at in shown], [enough[at] for at in shown], room)
    spare = room - sum(widths)
    for number, at in enumerate(shown):
        more = min(spare, most[at] - widths[number]) if widths[number] >= needs[at] else 0
        widths[number] += more
        spare -= more
    return Plan(tuple(heads), tuple(shown), tuple(widths), tuple(below), gap, width)


def _shared(needs: Sequence[int], floors: Sequence[int], room: int) -> list[int]:
    """Narrow the widest first, and evenly, down to their floors, until all fit."""

    def at_level(level: int) -> list[int]:
        return [max(floor, min(need, level)) for need, floor in zip(needs, floors, strict=True)]

    level = min(max(needs, default=0), room)
    while level > 0 and sum(at_level(level)) > room:
        level -= 1
    widths = at_level(level)
    spare = room - sum(widths)
    for number, need in enumerate(needs):
        if spare > 0 and widths[number] == level < need:
            widths[number] += 1
            spare -= 1
    return widths


def text_of(cell: Cell) -> str:
    """Return a cell's whole text."""
    match cell:
        case Words(text):
            return text
        case Names(several):
            return names(several)
        case _:
            return cell


def _need(cell: Cell) -> int:
    return least_of_names(cell.several) if isinstance(cell, Names) else cells(text_of(cell))


def _most(cell: Cell) -> int:
    return cells(text_of(cell))
