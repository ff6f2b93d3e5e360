"""Times as an operator writes them: ``90s``, ``15m``, ``2h``, ``3d`` ago, or a date or time."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from solidjq.durations import SECONDS, parse_duration

_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*/\s*([smhd])", re.ASCII)


def parse_time(text: str, now: datetime, option: str) -> datetime:
    """Read how long before ``now``, or a date or time; without a zone it is UTC.

    Raises UsageError, naming the option.
    """
    from solidjq.errors import UsageError  # noqa: PLC0415

    try:
        if (duration := parse_duration(text)) is not None:
            return now - duration
        time = datetime.fromisoformat(text.strip())
        time = (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} {text!r}: write how long ago, as 90s, 15m, 2h or 3d, or a time, as 2026-11-23T04:40Z"
        ) from None
    return time


def duration_option(text: str | None, option: str) -> float | None:
    """Read an option's ``90s``, ``15m``, ``2h`` or ``3d`` as seconds. Raises UsageError, naming the option."""
    from solidjq.errors import UsageError  # noqa: PLC0415

    if text is None:
        return None
    duration = parse_duration(text)
    if duration is None:
        raise UsageError(f"{option} {text!r}: write how long, as 90s, 15m, 2h or 3d")
    return duration.total_seconds()


def rate_option(text: str | None) -> float | None:
    """Read ``100/m`` as the seconds between one and the next. Raises UsageError."""
    from solidjq.errors import UsageError  # noqa: PLC0415

    if text is None:
        return None
    match = _RATE.fullmatch(text.strip().lower())
    if match is None or not float(match[1]):
        raise UsageError(f"--rate {text!r}: write how many in which time, as 5/s, 100/m or 2000/h")
    return SECONDS[match[2]] / float(match[1])
