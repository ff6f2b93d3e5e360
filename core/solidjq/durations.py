"""Durations as people write them: ``90s``, ``15m``, ``1h30m``, ``3d``, ``1w``."""

import re
from datetime import timedelta

MOST = timedelta(days=100 * 365)  # the longest duration that is accepted
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*([smhdw])\s*", re.ASCII)
_WRITTEN = re.compile(rf"(?:{_PART.pattern}){{1,5}}", re.ASCII)


def parse_duration(text: str) -> timedelta | None:
    """Parse ``90s``, ``15m``, ``1h30m``, ``3d`` or ``1w``; None if ``text`` is no duration or longer than a century."""
    written = text.strip().lower()
    if _WRITTEN.fullmatch(written) is None:
        return None
    seconds = sum(float(number) * SECONDS[unit] for number, unit in _PART.findall(written))
    return timedelta(seconds=seconds) if seconds <= MOST.total_seconds() else None


def spell_duration(duration: timedelta) -> str:
    """Write a duration in its largest unit that fits, rounded down: ``90s``, ``15m``, ``72h``, ``8d``."""
    seconds = int(duration.total_seconds())
    for unit, least in (("d", 5 * 86400), ("h", 3600), ("m", 120)):
        if seconds >= least:
            return f"{seconds // SECONDS[unit]}{unit}"
    return f"{seconds}s"
