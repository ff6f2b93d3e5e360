"""The table of docs/guarantees.md, made from the results in docs/chaos/.

python tests/chaos/report.py
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from faults import EVERY, TABLE

from support.paths import ROOT

PAGE = ROOT / "docs" / "guarantees.md"
RESULTS = ROOT / "docs" / "chaos"
BEGIN, END = "<!-- made by tests/chaos/report.py; do not edit -->\n", "<!-- the end of what is made -->\n"


def results() -> list[dict[str, Any]]:
    """Return the summaries of the runs that are checked in."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table: how often each fault was struck on each database, and what was violated."""
    return "\n".join(_lines(runs)) + "\n"


def _lines(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    of = {kind: [run for run in runs if run["database"] == kind] for kind in EVERY}
    yield f"| fault | what happens | {' | '.join(EVERY)} |"
    yield f"|---|---|{'---|' * len(EVERY)}"
    trials = {kind: sum((Counter(run["faults"]) for run in of[kind]), Counter()) for kind in EVERY}
    for fault in TABLE:
        cells = [str(trials[kind][fault.name]) if kind in fault.databases else "" for kind in EVERY]
        yield f"| {fault.name} | {fault.about} | {' | '.join(cells)} |"
    for name, about, count in _TOTALS:
        cells = [f"{round(sum(count(run) for run in of[kind]), 1):,}" for kind in EVERY]
        yield f"| {name} | {about} | {' | '.join(cells)} |"


_TOTALS: tuple[tuple[str, str, Callable[[dict[str, Any]], float]], ...] = (
    ("kill a command", "SIGKILL at any moment, while others run", lambda run: run["kills"]["commands"]),
    ("**processes killed**", "of `jq work`, by the faults above", lambda run: run["kills"]["processes of jq work"]),
    ("**sessions terminated**", "by the faults above", lambda run: run["sessions_terminated"]),
    ("**commands**", "that ran to their end: prune, recover, retry, ...", lambda run: run["commands"]),
    ("**jobs**", "each with a number of its own", lambda run: run["jobs"]),
    ("**jobs that ran again**", "all after a failure, a retry or a release", lambda run: run["jobs_run_again"]),
    ("**minutes**", "of all runs together", lambda run: run["minutes"]),
    ("**violations**", "of any promise, in all runs", lambda run: len(run["violations"])),
)


def page() -> str:
    """Return the page with the table made anew."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table(results()) + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
