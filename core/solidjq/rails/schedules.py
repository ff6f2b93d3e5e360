"""Schedules of recurring tasks: the times at which a task is due, how far apart they are, which of them were missed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

DAYS = 1500  # that are looked at: four years, with a leap day
MOST_TICKS = 1000  # that are counted
ZONES = [timedelta(minutes=15 * quarter) for quarter in range(-48, 57)]  # every distance of a local clock from UTC
SUMMER_TIME = 3600.0  # seconds by which a local clock is set

DAY = 86400  # seconds


class DayOfMonth(NamedTuple):
    """A day of the month; counted from its end if negative."""

    day: int

    def fits(self, day: date) -> bool:
        """Whether a date is this day."""
        if self.day > 0:
            return day.day == self.day
        following = day.replace(day=28) + timedelta(days=4)
        last = following.replace(day=1) - timedelta(days=1)
        return day.day == last.day + 1 + self.day


class Weekday(NamedTuple):
    """A day of the week, 0 for Sunday; with ``nth`` only the nth of the month, counted from its end if negative."""

    weekday: int
    nth: int | None = None

    def fits(self, day: date) -> bool:
        """Whether a date is this day."""
        if day.isoweekday() % 7 != self.weekday:
            return False
        if self.nth is None:
            return True
        if self.nth > 0:
            return (day.day - 1) // 7 + 1 == self.nth
        following = day.replace(day=28) + timedelta(days=4)
        last = (following.replace(day=1) - timedelta(days=1)).day
        return (last - day.day) // 7 + 1 == -self.nth


@dataclass(frozen=True)
class Schedule:
    """The times at which a task is due, on a clock that shows the schedule's own time zone."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    monthdays: tuple[DayOfMonth, ...] = ()  # none: every day
    weekdays: tuple[Weekday, ...] = ()
    both: bool = False  # a day must fit both; otherwise one of them is enough

    def is_due(self, at: datetime) -> bool:
        """Whether the task is due at this second."""
        here = at.second in self.seconds and at.minute in self.minutes and at.hour in self.hours
        return here and self._has_day(at.date())

    def ticks_after(self, at: datetime) -> Iterator[datetime]:
        """Yield the times after ``at`` at which it is due, in order, those of the next ``DAYS`` days."""
        start = at.date()
        for distance in range(DAYS):
            day = start + timedelta(days=distance)
            if self._has_day(day):
                midnight = datetime(day.year, day.month, day.day, tzinfo=at.tzinfo)
                yield from (tick for tick in self._ticks_on(midnight, at) if tick > at)

    def _ticks_on(self, midnight: datetime, after: datetime) -> Iterator[datetime]:
        for hour in self.hours:
            if midnight + timedelta(hours=hour + 1) <= after:
                continue
            for minute in self.minutes:
                for second in self.seconds:
                    yield midnight + timedelta(hours=hour, minutes=minute, seconds=second)

    @property
    def period(self) -> float | None:
        """The longest time between two ticks, in seconds; None if it is hardly ever due."""
        return _longest_gap(self)

    def _has_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        in_month = any(one.fits(day) for one in self.monthdays)
        in_week = any(one.fits(day) for one in self.weekdays)
        if self.monthdays and self.weekdays:
            return in_month and in_week if self.both else in_month or in_week
        return (in_month or not self.monthdays) and (in_week or not self.weekdays)


@lru_cache(maxsize=1000)
def _longest_gap(schedule: Schedule) -> float | None:
    days = [distance for distance in range(DAYS) if schedule._has_day(date(2024, 1, 1) + timedelta(days=distance))]  # noqa: SLF001
    if len(days) < 2:  # noqa: PLR2004  (one day has no gap)
        return None
    first, last = (schedule.hours[at] * 3600 + schedule.minutes[at] * 60 + schedule.seconds[at] for at in (0, -1))
    around_minute = schedule.seconds[0] - schedule.seconds[-1]
    around_hour = (schedule.minutes[0] - schedule.minutes[-1]) * 60 + around_minute
    return float(
        max(
            _widest(schedule.seconds),
            _widest(schedule.minutes) * 60 + around_minute if len(schedule.minutes) > 1 else 0,
            _widest(schedule.hours) * 3600 + around_hour if len(schedule.hours) > 1 else 0,
            _widest(days) * DAY + first - last,
        )
    )


def _widest(numbers: Sequence[int]) -> int:
    return max((after - before for before, after in pairwise(numbers)), default=0)


def count_missed(schedule: Schedule, *, last: datetime | None, since: datetime, now: datetime, late: float) -> int:
    """Count the ticks between ``since`` and now at which nothing ran, up to ``MOST_TICKS``.

    ``last`` is the tick of the last run, ``since`` the time from which on a run would have left a trace; a tick may be
    ``late`` by so many seconds. The time zone of the schedule is not needed: the last run stood on one of its ticks,
    which tells how far its clock is from UTC. Where several distances fit, the one with the fewest missed ticks counts;
    where the hour matters, an hour more is allowed, for a clock may have been set to summer time.
    """
    until = now - timedelta(seconds=late)
    if last is None:
        return _whole_periods(schedule, since, until)
    at = last.replace(microsecond=0)
    zones = [zone for zone in ZONES if schedule.is_due(at + zone)]
    if not zones:  # the schedule was changed since
        return _whole_periods(schedule, max(last, since), until)
    if len(zones) < len(ZONES):
        until -= timedelta(seconds=SUMMER_TIME)
    else:
        zones = [timedelta(0)]
    start = max(at, since - timedelta(seconds=1))
    return min(_count(schedule, start + zone, until + zone) for zone in zones)


def _count(schedule: Schedule, after: datetime, until: datetime) -> int:
    count = 0
    for tick in schedule.ticks_after(after):
        if tick > until or count == MOST_TICKS:
            break
        count += 1
    return count


def _whole_periods(schedule: Schedule, since: datetime, until: datetime) -> int:
    period = schedule.period
    if period is None or until <= since:
        return 0
    return min(MOST_TICKS, int((until - since).total_seconds() / period))
