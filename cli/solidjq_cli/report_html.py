"""A report as one page of HTML that needs nothing else: no script runs, and nothing is loaded."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING

from solidjq.text import one_line, printable
from solidjq_cli import incident_report as report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from solidjq_cli.timeline import Life

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #59636e; --line: #d1d9e0; --back: #fff; --alive: #2f6f4f;
  --silent: #b35900; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9198a1; --line: #3d444d; --back: #0d1117;
  --alive: #5fb98b; --silent: #e3a04f; --bad: #ff8a80; } }
body { margin: 0 auto; max-width: 64rem; padding: 1.5rem; color: var(--ink); background: var(--back);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .25rem 1rem; margin: 0; }
dt { color: var(--dim); } dd { margin: 0; }
.wide { overflow-x: auto; } .wide > svg { min-width: 44rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
  min-width: 3rem; max-width: 28rem; overflow-wrap: break-word; }
th { color: var(--dim); font-weight: 600; white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--line); font-size: .85rem; overflow-wrap: normal; }
ul.todo { list-style: none; padding: 0; } ul.todo label { display: flex; gap: .6rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.axis { stroke: var(--line); } .alive { fill: var(--alive); } .silent { fill: var(--silent); opacity: .35; }
.end { fill: var(--bad); } .noticed { fill: var(--silent); }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } h2 { break-after: avoid; }
  tr, li, svg { break-inside: avoid; } .wide, pre { overflow: visible; } pre { white-space: pre-wrap; }
  th, td { overflow-wrap: anywhere; } .wide > svg { min-width: 0; } }
"""
_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
WIDTH, NAMES, ROW = 960, 300, 20  # units of the picture: its width, what names get of it, the height of a row
MOST_NAME = 44  # characters


def write(made: report.Report) -> str:
    """Return the report as a page; every text in it is escaped, and its data are inside as JSON."""
    return "\n".join(_lines(made)) + "\n"


def _lines(made: report.Report) -> Iterator[str]:
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="referrer" content="no-referrer"><meta name="robots" content="noindex">'
    yield f"<title>{_text(made.title)}</title>"
    yield f"<style>{STYLE}</style></head><body><main>"
    yield f"<h1>{_text(made.title)}</h1>"
    for section in made.sections:
        yield f"<section><h2>{_text(section.title)}</h2>"
        for block in section.blocks:
            yield from _block(block)
        yield "</section>"
    yield f'</main><script type="application/json" id="incident">{_data(made.data)}</script></body></html>'


def _block(block: report.Block) -> Iterator[str]:
    match block:
        case report.Paragraph(text):
            yield f"<p>{_text(text)}</p>"
        case report.Facts(pairs):
            yield "<dl>"
            yield from (f"<dt>{_text(label)}</dt><dd>{_text(text)}</dd>" for label, text in pairs)
            yield "</dl>"
        case report.ToDo(items):
            yield '<ul class="todo">'
            yield from (f'<li><label><input type="checkbox"><span>{_text(item)}</span></label></li>' for item in items)
            yield "</ul>"
        case report.Table(heads, rows, numbers):
            yield '<div class="wide"><table><thead>'
            yield _row("th", heads, numbers)
            yield "</thead><tbody>"
            yield from (_row("td", row, numbers) for row in rows)
            yield "</tbody></table></div>"
        case report.Code(text):
            lines = "\n".join(printable(line) for line in text.splitlines())
            yield f"<pre>{escape(lines)}</pre>"
        case report.Timeline(lives, start, end):
            yield from _picture(lives, start, end)


def _row(tag: str, cells: Sequence[str], numbers: frozenset[int]) -> str:
    written = [
        f"<{tag}{' class=number' if at in numbers else ''}>{_text(cell)}</{tag}>" for at, cell in enumerate(cells)
    ]
    return f"<tr>{''.join(written)}</tr>"


def _picture(lives: Sequence[Life], start: datetime, end: datetime) -> Iterator[str]:
    """Yield a drawing: each row a life, alive until its last sign, then silent until its end was noticed."""
    height = ROW * (len(lives) + 2)
    yield f'<div class="wide"><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="When each process lived">'
    for x, anchor, time in ((NAMES, "start", start), (WIDTH, "end", end)):
        yield f'<text x="{x}" y="14" text-anchor="{anchor}">{escape(report.utc(time))}</text>'
    yield f'<line class="axis" x1="{NAMES}" x2="{WIDTH}" y1="{ROW}" y2="{ROW}"/>'
    for number, life in enumerate(lives, 1):
        yield from _life(life, number * ROW, start, end)
    yield f'<text x="{NAMES}" y="{height - 5}">green: alive; red: last sign of life; orange: silent, unnoticed</text>'
    yield "</svg></div>"


def _life(life: Life, top: int, start: datetime, end: datetime) -> Iterator[str]:
    def x(time: datetime) -> float:
        share = (time - start) / (end - start) if end > start else 0.0
        return round(NAMES + (WIDTH - NAMES) * max(0.0, min(1.0, share)), 1)

    name = one_line(life.name)
    indent = 12 if life.name.startswith(" ") else 0
    cut = name if len(name) <= MOST_NAME else f"{name[: MOST_NAME - 1]}…"
    yield f'<text x="{indent}" y="{top + 15}">{escape(cut)}</text>'
    if life.end is None:
        return
    last = x(life.end)
    first = last if life.start is None else min(x(life.start), last)
    yield f'<rect class="alive" x="{first}" y="{top + 5}" width="{round(last - first, 1)}" height="10"/>'
    if life.noticed is not None:
        seen = max(last, x(life.noticed))
        yield f'<rect class="silent" x="{last}" y="{top + 5}" width="{round(seen - last, 1)}" height="10"/>'
        yield f'<rect class="noticed" x="{round(seen - 2, 1)}" y="{top + 3}" width="2" height="14"/>'
    yield f'<rect class="end" x="{round(last - 1, 1)}" y="{top + 3}" width="3" height="14"/>'


def _text(text: str) -> str:
    return escape(one_line(text))


def _data(data: object) -> str:
    """Return JSON in which no text can end the element or begin another."""
    written = json.dumps(data, ensure_ascii=True)
    return written.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
