"""What was measured, how it is summed up, and how it is printed."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from watch import CrashedError, Drain

# Seconds; of a drain with the worker's memory; of each job; or named figures of several kinds.
Sample = float | Drain | list[float] | Mapping[str, float]


@dataclass
class Contender:
    """One way to do a row's work: ``start`` names a prepared database, ``work`` is given a copy of it."""

    who: str
    setting: str
    jobs: int
    start: Callable[[], str]
    work: Callable[[str], Sample]
    seconds: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # MB at the first job and at the end
    measures: list[Mapping[str, float]] = field(default_factory=list)  # figures by the heading of their column
    error: str | None = None

    def add(self, sample: Sample) -> None:
        """Take one more sample."""
        if isinstance(sample, Drain):
            self.seconds.append(sample.seconds)
            self.memory.append((sample.memory_first, sample.memory_last))
        elif isinstance(sample, Mapping):
            self.measures.append(sample)
        else:
            self.seconds += sample if isinstance(sample, list) else [sample]

    @property
    def rate(self) -> float:
        """Jobs a second, the median."""
        return self.jobs / statistics.median(self.seconds)

    @property
    def measured(self) -> bool:
        """Tell whether it got through."""
        return self.error is None and bool(self.seconds or self.measures)


@dataclass
class Row:
    """What is compared: the same work by all contenders, ``runs`` times each."""

    name: str
    title: str
    contenders: list[Contender]
    runs: int
    size: int  # of the tables that it starts from
    # "jobs/s"; "ms" of the whole; "ms each": the median and the 99th percentile of single jobs; "s each": the first and
    # the last of them; or "": medians of the named figures.
    unit: str = "jobs/s"
    notes: Sequence[Callable[[], Sequence[str]]] = ()  # what more there is to say below the table

    def measure(self, copy: Callable[[str], str], tell: Callable[[str], object]) -> None:
        """Let all take part in turns, so that a disturbed minute hits all alike; who crashes once is out."""
        for run in range(self.runs):
            for each in self.contenders:
                if each.error is None:
                    tell(f"{self.title}: {each.who}, {each.setting} ({run + 1} of {self.runs})")
                    try:
                        each.add(each.work(copy(each.start())))
                    except Exception as error:  # noqa: BLE001  (whatever it is belongs into the table)
                        words = str(error).splitlines() or [""]
                        kind = "" if isinstance(error, CrashedError) else f"{type(error).__name__}: "
                        each.error = f"crashed: {kind}{words[0]}"

    def facts(self, database: str) -> Iterator[dict[str, Any]]:
        """Yield the raw figures."""
        for each in self.contenders:
            told = {
                key: getattr(each, key) for key in ("who", "setting", "jobs", "seconds", "memory", "measures", "error")
            }
            yield {"database": database, "row": self.name, "size": self.size, **told}


def show(console: Console, row: Row) -> None:
    """Print a row as a table; a ratio above 1 means that jq, with the setting above the column, is the faster one."""
    ours = [each for each in row.contenders if each.who == "jq" and each.measured]
    table = Table(title=row.title, title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("setting")
    for heading in HEADINGS.get(row.unit) or _named(row):
        table.add_column(heading, justify="right")
    compared = bool(row.unit) and len(row.contenders) > 1
    for each in ours if compared else []:
        table.add_column(f"jq {each.setting}\n÷ this", justify="right", max_width=26)
    remembered = any(each.memory for each in row.contenders)
    if remembered:
        table.add_column("worker's MB,\nfirst job / end", justify="right")
    for each in row.contenders:
        if not each.measured:
            table.add_row(each.who, f"{each.setting} {each.error}".strip())
            continue
        cells = [each.who, each.setting, *(_cells(row.unit, each) if row.unit else _medians(row, each))]
        cells += [f"{mine.rate / each.rate:.2f}" for mine in ours] if compared else []
        if remembered:
            cells.append(" / ".join(f"{value:.0f}" for value in each.memory[-1]) if each.memory else "")
        table.add_row(*cells)
    console.print(table)
    for note in row.notes:
        for line in note():
            console.print(line, highlight=False, soft_wrap=True)


HEADINGS = {
    "jobs/s": ("jobs", "jobs/s", "seconds", "slowest to fastest"),
    "ms": ("milliseconds", "fastest to slowest"),
    "ms each": ("jobs", "p50 ms", "p99 ms"),
    "s each": ("jobs", "first job, s", "last job, s"),
}


def _named(row: Row) -> list[str]:
    return list(dict.fromkeys(name for each in row.contenders for sample in each.measures for name in sample))


def _medians(row: Row, each: Contender) -> list[str]:
    values = ([sample[name] for sample in each.measures if name in sample] for name in _named(row))
    return [f"{statistics.median(found):,.3g}" if found else "" for found in values]


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least this part of all do not exceed."""
    return sorted(values)[math.ceil(len(values) * part) - 1]


def _cells(unit: str, each: Contender) -> tuple[str, ...]:
    seconds = each.seconds
    if unit == "ms each":
        return f"{len(seconds)}", f"{percentile(seconds, 0.5) * 1000:.1f}", f"{percentile(seconds, 0.99) * 1000:.1f}"
    if unit == "s each":
        return f"{len(seconds)}", f"{min(seconds):.1f}", f"{max(seconds):.1f}"
    if unit == "ms":
        return (
            f"{statistics.median(seconds) * 1000:.2f}",
            f"{min(seconds) * 1000:.2f} to {max(seconds) * 1000:.2f}",
        )
    spread = f"{each.jobs / max(seconds):,.0f} to {each.jobs / min(seconds):,.0f}"
    return f"{each.jobs:,}", f"{each.rate:,.0f}", f"{statistics.median(seconds):.2f}", spread
