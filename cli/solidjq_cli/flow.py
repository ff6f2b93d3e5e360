"""Text laid out in lines: widths in cells, lines broken between words, headings, names as ``X +11``, host names.

Pure functions of a text and a width in cells of a terminal. A width of None is no limit: nothing is broken or cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

GAP = 2  # between what stands side by side
ELLIPSIS = "…"
DOMAIN_PARTS = 2  # the fewest dots' parts of a host name that is shortened: its own name, and a domain


def cells(text: str) -> int:
    """Return how many cells of a terminal a text takes; CJK characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415  (only where there is such text)

    return cell_len(text)


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Fill a text up with blanks; with ``right`` it stands at the right."""
    blanks = " " * (width - cells(text))
    return blanks + text if right else text + blanks


def cut(text: str, width: int) -> str:
    """Cut a text that is wider, with an ellipsis at its end."""
    if cells(text) <= width:
        return text
    return _head(text, width - 1).rstrip() + ELLIPSIS


def _head(text: str, width: int) -> str:
    """Return the beginning of a text that fits a width."""
    if text.isascii():
        return text[:width]
    end, used = 0, 0
    for character in text:
        used += cells(character)
        if used > width:
            break
        end += 1
    return text[:end]


def wrap(text: str, width: int | None, first: str = "", rest: str | None = None) -> list[str]:
    """Break a text between its words; runs of blanks become one.

    The first line begins with ``first``, the others with ``rest``, as many blanks if it is None. A word that is wider
    than a line is left whole, so that a path or URL can be copied; only text of a script without blanks is broken.
    """
    return fill(text.split(), width, first, rest)


def fill(
    parts: Sequence[str], width: int | None, first: str = "", rest: str | None = None, gap: str = " "
) -> list[str]:
    """Put parts side by side, with ``gap`` between, in as many lines as they need; no part is broken.

    ``first`` and ``rest`` are as in ``wrap``.
    """
    rest = " " * cells(first) if rest is None else rest
    lines, line, room, begins = [], first, 0 if width is None else width - cells(first), True
    for part in parts:
        part_width = cells(part)
        if not begins and width is not None and cells(gap) + part_width > room:
            lines.append(line)
            line, room, begins = rest, width - cells(rest), True
        line += part if begins else gap + part
        room -= part_width + (0 if begins else cells(gap))
        begins = False
        while width is not None and room < 0 and part_width > len(part):
            head = _head(line, width)
            if len(head) <= len(rest):
                break
            lines.append(head)
            line = rest + line[len(head) :]
            room = width - cells(line)
    return [*lines, line.rstrip()]


def heading(text: str, places: Sequence[str], width: int | None) -> list[str]:
    """Return the first lines of a screen: a text, and at the right which database it speaks of.

    ``places`` names the database, the fullest form first; the first form for which the last line of the text has room
    is taken. If it has room for none, the shortest stands beside the last words of a text that is broken already, on a
    line more, or else on a line of its own above.
    """
    shortest = places[-1] if places else ""
    if not text or not places:
        return [] if not text and not places else _alone(text, places, width)
    if width is None:
        return [f"{text}{' ' * GAP}{places[0]}"]
    lines = wrap(text, width)
    for place in places:
        if cells(lines[-1]) + GAP + cells(place) <= width:
            return [*lines[:-1], _beside(lines[-1], place, width)]
    words = lines[-1].split()
    for number in range(len(words) - 1, 0, -1) if len(lines) > 1 else ():
        rest = " ".join(words[number:])
        if cells(rest) + GAP + cells(shortest) <= width:
            return [*lines[:-1], " ".join(words[:number]), _beside(rest, shortest, width)]
    return [*_alone("", [shortest], width), *lines]


def _beside(text: str, place: str, width: int) -> str:
    return text + " " * (width - cells(text) - cells(place)) + place


def _alone(text: str, places: Sequence[str], width: int | None) -> list[str]:
    if text:
        return wrap(text, width)
    fitting = (place for place in places if width is None or cells(place) <= width)
    return wrap(next(fitting, places[-1]), width)


def names(several: Sequence[str], width: int | None = None) -> str:
    """Write names as far as they fit a width: ``A, B, C``, or ``A, B +11``; at least the first one, cut if it must."""
    if not several:
        return "-"
    for shown in range(len(several), 0, -1):
        text = ", ".join(several[:shown]) + more(len(several) - shown)
        if width is None or cells(text) <= width:
            return text
    others = more(len(several) - 1)
    return cut(several[0], max(1, (width or 0) - len(others))) + others


def least_of_names(several: Sequence[str]) -> int:
    """Return the width of the first name and the count of the others."""
    return cells(several[0]) + len(more(len(several) - 1)) if several else 1


def more(count: int) -> str:
    """Return how many others there are, behind names: `` +11``; nothing if there are none."""
    return f" +{count:,}" if count > 0 else ""


def short_hosts(hosts: Collection[str]) -> dict[str, str]:
    """Return each host name without the domain that all of them share: ``worker-1`` for ``worker-1.ams2.internal``.

    Addresses stay whole, and so do all names if one has no domain, or if two would look alike.
    """
    parts = {host: host.split(".") for host in hosts if host}
    whole = {host: host for host in hosts}
    if not parts or any(len(each) < DOMAIN_PARTS or each[-1].isdigit() or ":" in each[0] for each in parts.values()):
        return whole
    shared = 0
    for level in zip(*(reversed(each[1:]) for each in parts.values()), strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    shared = min(shared, min(len(each) for each in parts.values()) - 1)
    if not shared:
        return whole
    return {**whole, **{host: ".".join(each[: len(each) - shared]) for host, each in parts.items()}}
