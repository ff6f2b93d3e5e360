"""How seconds grow with the number of jobs, as SVG: one panel a row, both axes logarithmic.

Written by hand, since a dozen lines and labels need no library.
"""

import math
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

PANELS = {"prune": "prune", "retry": "retry", "list": "failed list, first page"}
COLOURS = ("#c0392b", "#e67e22", "#2c3e50", "#2980b9", "#16a085", "#8e44ad", "#7f8c8d", "#27ae60")
DASHES = ("", "6 3", "2 2")  # one after another once all colours are used
WIDTH, HEIGHT, LEFT, TOP, GAP = 250, 260, 60, 40, 90
LEGEND = 16  # pixels a line
LETTER = 6  # pixels wide at most, on average


class Line(NamedTuple):
    """One contender's medians: (jobs, seconds)."""

    label: str
    points: list[tuple[int, float]]


def lines(facts: Sequence[dict[str, Any]], row: str) -> list[Line]:
    """Collect the lines of a panel from the raw figures of a run on PostgreSQL."""
    found: dict[str, list[tuple[int, float]]] = {}
    for fact in facts:
        if fact["row"] == row and fact["database"] == "PostgreSQL" and fact["error"] is None:
            point = (fact["size"], statistics.median(fact["seconds"]))
            found.setdefault(f"{fact['who']}: {fact['setting']}", []).append(point)
    return [Line(label, sorted(points)) for label, points in found.items()]


def growth(facts: Sequence[dict[str, Any]], about: Sequence[str]) -> str:
    """Draw all panels, and below them lines about the run: the machine, versions, the date."""
    panels = [(title, drawn) for row, title in PANELS.items() if (drawn := lines(facts, row))]
    below = max((len(drawn) for _, drawn in panels), default=0) * LEGEND
    width = max(1, len(panels)) * (WIDTH + GAP) + LEFT
    about = [part for line in about for part in textwrap.wrap(line, (width - 2 * LEFT) // LETTER)]
    height = TOP + HEIGHT + 50 + below + LEGEND * len(about)
    body = "\n".join(
        part
        for number, (title, drawn) in enumerate(panels)
        for part in _panel(LEFT + number * (WIDTH + GAP), title, drawn)
    )
    first = TOP + HEIGHT + 50 + below
    body += "".join(
        f'\n<text x="{LEFT}" y="{first + number * LEGEND}" fill="#777">{escape(line)}</text>'
        for number, line in enumerate(about)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _panel(left: int, title: str, drawn: Sequence[Line]) -> Iterator[str]:
    xs = [math.log10(jobs) for line in drawn for jobs, _ in line.points]
    ys = [math.log10(seconds) for line in drawn for _, seconds in line.points]
    low_x, high_x = math.floor(min(xs)), max(math.ceil(max(xs)), math.floor(min(xs)) + 1)
    low_y, high_y = math.floor(min(ys)), max(math.ceil(max(ys)), math.floor(min(ys)) + 1)

    def place(jobs: float, seconds: float) -> tuple[float, float]:
        x = left + (math.log10(jobs) - low_x) / (high_x - low_x) * WIDTH
        return round(x, 1), round(TOP + (high_y - math.log10(seconds)) / (high_y - low_y) * HEIGHT, 1)

    yield f'<text x="{left}" y="{TOP - 15}" font-size="14" font-weight="bold">{escape(title)}, seconds</text>'
    for power in range(low_x, high_x + 1):
        x, _ = place(10**power, 10**low_y)
        yield f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{TOP + HEIGHT}" stroke="#ddd"/>'
        yield f'<text x="{x}" y="{TOP + HEIGHT + 15}" text-anchor="middle">{10**power:,}</text>'
    for power in range(low_y, high_y + 1):
        _, y = place(10**low_x, 10**power)
        yield f'<line x1="{left}" y1="{y}" x2="{left + WIDTH}" y2="{y}" stroke="#ddd"/>'
        yield f'<text x="{left - 5}" y="{y + 4}" text-anchor="end">{10.0**power:g}</text>'
    for number, line in enumerate(drawn):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
        stroke = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        places = [place(*point) for point in line.points]
        path = " ".join(f"{x},{y}" for x, y in places)
        yield f'<polyline points="{path}" fill="none" {stroke}/>'
        yield from (f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places)
        y = TOP + HEIGHT + 40 + number * LEGEND
        yield f'<line x1="{left}" y1="{y - 4}" x2="{left + 18}" y2="{y - 4}" {stroke}/>'
        yield f'<text x="{left + 24}" y="{y}">{escape(line.label)}</text>'
