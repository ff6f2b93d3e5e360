"""The schedules of recurring tasks: what is read, when a task is due, and which ticks were missed."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from solidjq.rails.schedule_texts import parse_schedule
from solidjq.rails.schedules import MOST_TICKS, Schedule, count_missed

THURSDAY = datetime(2026, 11, 26, 14, 3, tzinfo=UTC)
DAY = 86400.0


def schedule_of(text: str) -> Schedule:
    schedule = parse_schedule(text)
    assert schedule is not None, text
    return schedule


# Each beside the line of cron that fugit makes of it.
SENTENCES = {
    "every 5 minutes": "*/5 * * * *",
    "every minute": "* * * * *",
    "every 30 seconds": "*/30 * * * * *",
    "every hour": "0 * * * *",
    "every hour at minute 12": "12 * * * *",
    "every 2 hours": "0 */2 * * *",
    "every day": "0 0 * * *",
    "every day at 9am": "0 9 * * *",
    "every day at 9 AM": "0 9 * * *",
    "every day at 12am": "0 0 * * *",
    "every day at 16:30": "30 16 * * *",
    "every day at noon": "0 12 * * *",
    "Every day at 9:00 and 17:00": "0 9,17 * * *",
    "every weekday at 9:30": "30 9 * * 1-5",
    "every Monday": "0 0 * * 1",
    "every monday and friday at noon": "0 12 * * 1,5",
    "every mon-fri at 9": "0 9 * * 1-5",
    "every monday to friday at 9": "0 9 * * 1-5",
    "every week": "0 0 * * 0",
    "every week on sunday at 3am Europe/Berlin": "0 3 * * 0",
    "every month": "0 0 1 * *",
    "every month on the 15th at 10:00": "0 10 15 * *",
    "every month on days 1, 15 at 10:00": "0 10 1,15 * *",
    "every 1st of the month at 5:00": "0 5 1 * *",
    "every year": "0 0 1 1 *",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
    "0 9 * * MON-FRI America/New_York": "0 9 * * 1-5",
    "*/10 * * * * UTC": "*/10 * * * *",
    "  0   9 * * * ": "0 9 * * *",
}


@pytest.mark.parametrize(("text", "line"), SENTENCES.items())
def test_a_sentence_is_a_line_of_cron(text: str, line: str) -> None:
    assert schedule_of(text) == schedule_of(line)


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "every fortnight", "every other day", "every blue moon", "@reboot", "at 5", "every day at 25:00"),
        *("15~20 * * * *", "0 12 * * mon%2", "* * 99 * *", "* * *", "60 * * * *", "*/0 * * * *", "every 0 minutes"),
        *("every day at 9:15 and 17:30", "every minute at 5", "every hour on monday", "every 2 weeks", "x" * 5000),
        *("every 5 minutes; rm -rf /", "every 32nd of the month", "0 0 * * mon#9", "\x00", "*" * 250),
    ],
)
def test_what_cannot_be_read_is_none(text: str) -> None:
    assert parse_schedule(text) is None


@pytest.mark.parametrize(
    ("text", "ticks"),
    [
        ("*/5 * * * *", ["26 14:05", "26 14:10", "26 14:15"]),
        ("0 9 * * 1-5", ["27 09:00", "30 09:00"]),
        ("0 0 l * *", ["30 00:00"]),
        ("0 0 -2 * *", ["29 00:00"]),
        ("0 0 * * mon#l", ["30 00:00"]),
        ("0 0 * * fri#4", ["27 00:00"]),
        ("0 22-1 * * *", ["26 22:00", "26 23:00", "27 00:00", "27 01:00", "27 22:00"]),
        ("0 12 27 * sat", ["27 12:00", "28 12:00"]),
        ("0 12 28& * sat", ["28 12:00"]),
        ("10/20 14 * * *", ["26 14:10", "26 14:30", "26 14:50", "27 14:10"]),
        ("0 24 27 * *", ["27 00:00"]),
    ],
)
def test_ticks(text: str, ticks: list[str]) -> None:
    found = islice(schedule_of(text).ticks_after(THURSDAY), len(ticks))
    assert [f"{tick:%d %H:%M}" for tick in found] == ticks


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("* * * * * *", 1),
        ("*/45 * * * *", 2700),
        ("0 9-17 * * *", 16 * 3600),
        ("0 9 * * 1-5", 3 * DAY),
        ("*/5 9-17 * * 1-5", 3 * DAY - 9 * 3600 + 300),
        ("0 0 1 * *", 31 * DAY),
        ("0 0 1 1 *", 366 * DAY),
    ],
)
def test_the_period_is_the_longest_gap(text: str, seconds: float) -> None:
    assert schedule_of(text).period == seconds


def test_a_schedule_that_is_never_due_has_no_period() -> None:
    never = schedule_of("0 0 31 2 *")
    assert (never.period, [*never.ticks_after(THURSDAY)]) == (None, [])


def missed(text: str, last: datetime | None, now: datetime, since: datetime = THURSDAY - timedelta(days=90)) -> int:
    return count_missed(schedule_of(text), last=last, since=since, now=now, late=60)


def test_missed_ticks() -> None:
    last = THURSDAY.replace(minute=0)
    assert missed("*/5 * * * *", last, last + timedelta(minutes=5, seconds=59)) == 0
    assert missed("*/5 * * * *", last, last + timedelta(minutes=6)) == 1
    assert missed("*/5 * * * *", last, last + timedelta(minutes=31)) == 6
    assert missed("*/5 * * * *", last, last + timedelta(days=90)) == MOST_TICKS


@pytest.mark.parametrize("zone", [timedelta(hours=-8), timedelta(0), timedelta(hours=5, minutes=30)])
def test_missed_ticks_in_a_zone_that_nobody_names(zone: timedelta) -> None:
    """The last run tells where the schedule's clock stands: on Friday at 9 the next tick is on Monday."""
    friday = datetime(2026, 11, 27, 9, tzinfo=UTC) - zone
    monday = friday + timedelta(days=3)
    assert missed("0 9 * * 1-5", friday, monday - timedelta(minutes=1)) == 0
    assert missed("0 9 * * 1-5", friday, monday + timedelta(minutes=59)) == 0  # clocks may have been set
    assert missed("0 9 * * 1-5", friday, monday + timedelta(minutes=62)) == 1
    assert missed("0 9 * * 1-5", friday, monday + timedelta(days=1, minutes=62)) == 2


def test_only_ticks_that_would_have_left_a_trace_count() -> None:
    last = THURSDAY.replace(minute=0)
    kept_since = last + timedelta(minutes=20)
    assert missed("*/5 * * * *", last, last + timedelta(minutes=31), kept_since) == 3
    assert missed("*/5 * * * *", None, last + timedelta(minutes=31), kept_since) == 2
    assert missed("@daily", None, last + timedelta(hours=23), last) == 0


def test_a_schedule_that_was_changed_since_the_last_run() -> None:
    odd = THURSDAY.replace(minute=3, second=7)  # on no tick of the new schedule
    assert missed("0 * * * *", odd, odd + timedelta(minutes=60)) == 0
    assert missed("0 * * * *", odd, odd + timedelta(minutes=122)) == 2
