"""Times and durations as operators write them."""

from datetime import UTC, datetime, timedelta

import pytest

from solidjq.durations import parse_duration
from solidjq.errors import UsageError
from solidjq_cli.times import parse_span, parse_time
from support.commands import run

NOW = datetime(2026, 11, 26, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("now", "2026-11-26T10:30:00"),
        ("2h", "2026-11-26T08:30:00"),
        ("2h ago", "2026-11-26T08:30:00"),
        ("1d12h", "2026-11-24T22:30:00"),
        ("today", "2026-11-26T00:00:00"),
        ("Yesterday", "2026-11-25T00:00:00"),
        ("yesterday 23:15", "2026-11-25T23:15:00"),
        ("9:05", "2026-11-26T09:05:00"),
        ("10:30", "2026-11-26T10:30:00"),
        ("12:00", "2026-11-25T12:00:00"),  # noon is still to come today
        ("12:00:30+02:00", "2026-11-26T10:00:30"),
        ("12:00z", "2026-11-25T12:00:00"),
        ("2026-11-23", "2026-11-23T00:00:00"),
        ("2026-11-23T04:40+01:00", "2026-11-23T03:40:00"),
    ],
)
def test_times_of_the_past(text: str, time: str) -> None:
    assert parse_time(text, NOW, "--since") == datetime.fromisoformat(time).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "time"),
    [("12:00", "2026-11-26T12:00:00"), ("9:05", "2026-11-27T09:05:00"), ("tomorrow 6:00", "2026-11-27T06:00:00")],
)
def test_times_ahead(text: str, time: str) -> None:
    assert parse_time(text, NOW, "--at", ahead=True) == datetime.fromisoformat(time).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "noon", "25:00", "12:60", "yesterdays", "yesterday 2h", "12", "2 h ago now"])
def test_what_is_no_time_names_what_is(text: str) -> None:
    with pytest.raises(UsageError, match=r"--since .*15m.*yesterday.*12:00.*2026-11-23T04:40Z"):
        parse_time(text, NOW, "--since")


def test_a_span_must_not_end_before_it_begins() -> None:
    assert parse_span(None, None, NOW) == (None, None)
    assert parse_span("now", None, NOW) == (NOW, None)
    assert parse_span("1s", "now", NOW) == (NOW - timedelta(seconds=1), NOW)
    with pytest.raises(UsageError, match="2026-11-26T10:30:00Z does not lie after"):
        parse_span("now", "now", NOW)


def test_durations() -> None:
    written = {"90s": 90, "1.5h": 5400, "1h30m": 5400, "1h 30m": 5400, "2d12h": 216000}
    assert {text: parse_duration(text) for text in written} == {
        text: timedelta(seconds=seconds) for text, seconds in written.items()
    }
    assert [parse_duration(text) for text in ("", "h", "1h30", "30", "1h-30m", "1y", "1s" * 6)] == [None] * 7


def test_options_of_seconds_take_durations(capsys: pytest.CaptureFixture[str]) -> None:
    for line, words in (
        ("work --heartbeat 5m --alive-threshold 6m", "every 300 s does not fit an alive threshold of 360 s"),
        ("work --heartbeat 90 --alive-threshold 2m", "every 90 s does not fit an alive threshold of 120 s"),
        ("work --heartbeat 9999d", "too large"),
        ("prune --alive-threshold 5x", "5x"),
    ):
        assert run([*line.split(), "--database", "sqlite:/nonexistent"]) == 2, line
        assert words in " ".join(capsys.readouterr().err.split()), line
