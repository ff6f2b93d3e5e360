"""Times and durations as an operator writes them: ``2h`` (ago), ``yesterday``, ``12:00``, a date or a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from solidjq.durations import SECONDS, parse_duration

_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*/\s*([smhd])", re.ASCII)
_OF_A_DAY = re.compile(r"(?:(today|yesterday|tomorrow)\s*)?(\d{1,2}:\d{2}\S*)?", re.ASCII)
_DAY = timedelta(days=1)


def parse_time(text: str, now: datetime, option: str, *, ahead: bool = False) -> datetime:
    """Read how long before ``now`` (``2h``, ``2h ago``), a day or a time of day, or a date or time; all in UTC.

    ``yesterday`` and ``today`` are the beginning of the day. ``12:00`` is the last time that it was noon, or with
    ``ahead`` the next time that it is.
    Raises UsageError, naming the option.
    """
    from solidjq.errors import UsageError  # noqa: PLC0415

    words = text.strip().lower()
    try:
        if words == "now":
            return now
        if (duration := parse_duration(words.removesuffix(" ago"))) is not None:
            return now - duration
        if words and (of_a_day := _OF_A_DAY.fullmatch(words)) is not None:
            return _time_of_day(of_a_day[1], of_a_day[2], now.astimezone(UTC), ahead=ahead)
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        span, day = ("in how long", "tomorrow") if ahead else ("how long ago", "yesterday")
        raise UsageError(
            f"{option} {text!r}: write {span}, as 90s, 15m, 2h or 3d; {day} or 12:00; or a time, as 2026-11-23T04:40Z"
        ) from None


def parse_due(text: str, now: datetime, option: str) -> datetime:
    """Read in how long from ``now`` (``2h``), or a time ahead. Raises UsageError for a time in the past, too."""
    from solidjq.errors import UsageError  # noqa: PLC0415

    duration = parse_duration(text)
    moment = parse_time(text, now, option, ahead=True) if duration is None else now + duration
    if moment < now:
        raise UsageError(f"{option} {text!r} is in the past")
    return moment


def _time_of_day(day: str | None, of_day: str | None, now: datetime, *, ahead: bool) -> datetime:
    """Return a time on a day; without one, the last or next time that it is so late. Raises ValueError for no time."""
    if day == ("yesterday" if ahead else "tomorrow"):
        raise ValueError(day)
    at = time.fromisoformat(of_day.upper().zfill(5) if of_day else "00:00")
    midnight = now.astimezone(at.tzinfo or UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    moment = midnight.replace(hour=at.hour, minute=at.minute, second=at.second, microsecond=at.microsecond)
    if day == "yesterday" or (day is None and not ahead and moment > now):
        moment -= _DAY
    elif day == "tomorrow" or (day is None and ahead and moment < now):
        moment += _DAY
    return moment.astimezone(UTC)


def parse_span(since: str | None, until: str | None, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Return the times of ``--since`` and ``--until``, None for one that was not given.

    Raises UsageError for a malformed time, and if the span ends before it begins.
    """
    from solidjq.errors import UsageError  # noqa: PLC0415

    begin = None if since is None else parse_time(since, now, "--since")
    end = None if until is None else parse_time(until, now, "--until")
    if begin is not None and end is not None and end <= begin:
        raise UsageError(
            f"--until {end:%Y-%m-%dT%H:%M:%SZ} does not lie after --since {begin:%Y-%m-%dT%H:%M:%SZ}: no time is left"
        )
    return begin, end


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
