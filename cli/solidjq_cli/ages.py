"""Times as they are printed: RFC 3339 for scripts, ages or local clock times for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_RFC_3339 = "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ"
_UNITS = (("d", 86400), ("h", 3600), ("m", 60))


def rfc3339(time: datetime) -> str:
    """Write a time in UTC, always with microseconds, so that times sort as text."""
    utc = time if time.tzinfo is UTC else time.astimezone(UTC)
    # isoformat, without its zone, takes twice as long.
    return _RFC_3339 % (utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond)


def age(time: datetime, now: datetime | None = None) -> str:
    """Write how long ago a time was, or how far ahead it is: ``2m ago``, ``in 5h``."""
    text, ahead = _distance(time, now)
    return f"in {text}" if ahead else f"{text} ago"


def short_age(time: datetime, now: datetime | None = None) -> str:
    """Write an age for a column of ages: ``2m``, ``in 5h``."""
    text, ahead = _distance(time, now)
    return f"in {text}" if ahead else text


def when(time: datetime) -> str:
    """Write a time for a table: its age, or with ``--local`` the clock time of this zone."""
    from solidjq_cli.view import current  # noqa: PLC0415

    return clock_time(time) if current().local else short_age(time)


def since(time: datetime) -> str:
    """Write a time for a sentence: ``2m ago``, or with ``--local`` the clock time of this zone."""
    from solidjq_cli.view import current  # noqa: PLC0415

    return clock_time(time) if current().local else age(time)


def moment(time: datetime) -> str:
    """Write a time in full, to the second, with its age: ``2026-11-23 04:40:22 UTC (2h ago)``; ``--local`` counts."""
    from solidjq_cli.view import current  # noqa: PLC0415

    shown = time.astimezone(None if current().local else UTC)
    return f"{shown:%Y-%m-%d %H:%M:%S %Z} ({age(time)})"


def clock_time(time: datetime, now: datetime | None = None) -> str:
    """Write a time of this zone as short as can be: ``16:03:48``, ``11-25 16:03``, ``2025-11-25 16:03``.

    In the hour that occurs twice when clocks are set back, the zone says which one: ``02:20:01 CET``.
    """
    local, today = time.astimezone(), (now or datetime.now(UTC)).astimezone()
    zone = " %Z" if _occurs_twice(local) else ""
    if local.date() == today.date():
        return f"{local:%H:%M:%S{zone}}"
    return f"{local:%m-%d %H:%M{zone}}" if local.year == today.year else f"{local:%Y-%m-%d %H:%M{zone}}"


def _occurs_twice(local: datetime) -> bool:
    """Whether the clock of this zone showed the time of ``local`` at another moment, too."""
    shown = local.replace(tzinfo=None)
    return shown.replace(fold=0).astimezone().utcoffset() != shown.replace(fold=1).astimezone().utcoffset()


def _distance(time: datetime, now: datetime | None) -> tuple[str, bool]:
    distance = (now or datetime.now(UTC)) - time
    seconds = abs(distance) // timedelta(seconds=1)
    for unit, size in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}", distance < timedelta()
    return f"{seconds}s", distance < timedelta()
