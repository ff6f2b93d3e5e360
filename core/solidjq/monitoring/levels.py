"""Levels of a check, by the convention of the plugins of Nagios and Icinga; ranges, and what checks report."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from solidjq.durations import parse_duration
from solidjq.errors import UsageError


class Level(StrEnum):
    """How bad it is. A plugin's exit code is the place: OK 0, warning 1, critical 2, unknown 3."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"  # the check could not be made

    @property
    def exit_code(self) -> int:
        """The exit code of a plugin."""
        return list(Level).index(self)


_WORST_FIRST = (Level.CRITICAL, Level.WARNING, Level.UNKNOWN, Level.OK)


def worst(levels: Iterable[Level]) -> Level:
    """Return the worst level: critical, warning, unknown, OK, in this order; OK if there is none."""
    return min(levels, key=_WORST_FIRST.index, default=Level.OK)


@dataclass(frozen=True, slots=True)
class AlertRange:
    """A range of the plugins' convention: alerts for a value outside of it, or with ``inside`` for one within."""

    text: str  # as it was written; durations as seconds
    low: float = 0.0
    high: float = math.inf
    inside: bool = False

    def alerts(self, value: float) -> bool:
        """Whether the value is worth an alert."""
        return (self.low <= value <= self.high) is self.inside


def parse_range(text: str, name: str, *, of_time: bool) -> AlertRange:
    """Read ``10`` (above 10), ``10:`` (below 10), ``~:10``, ``10:20``, ``@10:20`` (within).

    Of a range ``of_time`` each end may also be a duration, such as ``5m``. Raises UsageError, with the option's
    ``name``, for anything else.
    """
    read = _seconds if of_time else _number
    written = text.strip()
    low, colon, high = written.removeprefix("@").rpartition(":")
    least = -math.inf if low == "~" else read(low) if low else 0.0
    most = math.inf if colon and not high else read(high)
    if least is None or most is None or least > most:
        ends = ", or 5m" if of_time else "; this check counts"
        raise UsageError(f"{name} {text}: write a range of the monitoring plugins: 10, 10:, 10:20, @10:20{ends}")
    ends = "" if most == math.inf else f"{most:g}"
    start = "~:" if least == -math.inf else f"{least:g}:" if colon else ""
    return AlertRange(f"{'@' * written.startswith('@')}{start}{ends}", least, most, written.startswith("@"))


class Bounds(NamedTuple):
    """When a value is a warning, and when it is critical."""

    warn: AlertRange | None = None
    crit: AlertRange | None = None


NO_BOUNDS = Bounds()


def above(limit: float) -> AlertRange:
    """Return the range that alerts for more than ``limit``."""
    return AlertRange(f"{limit:g}", 0.0, limit)


def _seconds(text: str) -> float | None:
    duration = parse_duration(text)
    return _number(text) if duration is None else duration.total_seconds()


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class Measure:
    """One value that a check read; ``text`` says in words what is wrong, or what was found."""

    label: str
    level: Level
    text: str
    value: float | None = None
    unit: str = ""  # "s" for seconds
    warn: AlertRange | None = None
    crit: AlertRange | None = None


def measure(label: str, value: float, text: str, bounds: Bounds = NO_BOUNDS, *, unit: str = "") -> Measure:
    """Judge a value by its ranges."""
    warn, crit = bounds
    critical, warning = (bound is not None and bound.alerts(value) for bound in (crit, warn))
    level = Level.CRITICAL if critical else Level.WARNING if warning else Level.OK
    return Measure(label, level, text, value, unit, warn, crit)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What one check found. ``summary`` is what it says if nothing is wrong."""

    check: str
    measures: Sequence[Measure]
    summary: str

    @property
    def level(self) -> Level:
        """The worst level of what was measured."""
        return worst(one.level for one in self.measures)

    @property
    def text(self) -> str:
        """What is wrong, the worst first; else the summary."""
        bad = [one for one in self.measures if one.level is not Level.OK]
        return "; ".join(one.text for one in sorted(bad, key=lambda one: _WORST_FIRST.index(one.level))) or self.summary


def unknown(check: str, text: str) -> CheckReport:
    """Return the report of a check that could not be made."""
    return CheckReport(check, [Measure(check, Level.UNKNOWN, text)], text)
