"""Local time: heartbeats of a Rails application whose ``default_timezone`` is ``:local``.

Rails then writes the wall clock of its zone, which is ahead of UTC or behind it by a multiple of 15 minutes, and the
database's clock cannot say who is dead: east of Greenwich a dead process seems alive for hours, west of it every live
one seems dead. A live process is recognised by a heartbeat that is young but for such a multiple.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

_STEP = timedelta(minutes=15)  # the offsets of all zones are multiples of it
_FARTHEST = timedelta(hours=14)
_SLACK = timedelta(seconds=10)  # between two clocks
_YOUNG = 0.25  # thresholds; Solid Queue's processes beat five times in one
_MOST_YOUNG = timedelta(seconds=150)  # at most: with more, dead processes would often look alive in some zone
_SEVERAL = 2  # processes; one alone may have died an hour ago to the minute


def offset_of(beat: datetime | None, now: datetime, threshold: timedelta) -> timedelta | None:
    """Return the offset from UTC of the zone in which this heartbeat is young; None if it is not young in any."""
    if beat is None:
        return None
    steps = -((now - beat + _SLACK) // _STEP)  # the whole steps that it lies in the past, as a negative number
    offset = steps * _STEP
    young = now + offset - beat <= min(_YOUNG * threshold, _MOST_YOUNG)
    return offset if young and abs(offset) <= _FARTHEST else None


def find_offset(beats: Iterable[datetime | None], now: datetime, threshold: timedelta) -> timedelta | None:
    """Return the offset from UTC at which a fleet writes its heartbeats; None if it writes UTC, or nothing shows it.

    Several heartbeats must be young in the same zone, and none in UTC.
    """
    offsets = Counter(offset_of(beat, now, threshold) for beat in beats)
    del offsets[None]
    if not offsets or timedelta(0) in offsets:
        return None
    ((offset, processes),) = offsets.most_common(1)
    return offset if processes >= _SEVERAL else None


def words(offset: timedelta) -> str:
    """Return the offset in words: ``5 h 30 min ahead of UTC``."""
    minutes = abs(round(offset.total_seconds() / 60))
    parts = [f"{count} {unit}" for count, unit in ((minutes // 60, "h"), (minutes % 60, "min")) if count]
    return f"{' '.join(parts)} {'ahead of' if offset > timedelta(0) else 'behind'} UTC"
