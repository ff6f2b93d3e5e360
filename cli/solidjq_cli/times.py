"""Times as an operator writes them: ``90s``, ``15m``, ``2h``, ``3d`` ago, or a date or time."""

import re
from datetime import UTC, datetime, timedelta

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
MOST_SECONDS = 100 * 365 * 86400
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(text: str) -> timedelta | None:
    """Read ``90s``, ``15m``, ``2h``, ``3d`` or ``1w``; None if it is not one, or longer than a century."""
    match = _AGO.fullmatch(text.strip().lower())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else MOST_SECONDS + 1
    return timedelta(seconds=seconds) if seconds <= MOST_SECONDS else None


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
