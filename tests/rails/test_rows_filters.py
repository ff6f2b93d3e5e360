"""On databases that Rails left: filters, options and pages take the failures that they say."""

import shlex
from datetime import UTC, datetime, timedelta

import pytest

from solidjq import Database
from solidjq.queue.failed import Filter
from solidjq.rails.error_text import Death
from support import rails
from support.program import Shell
from support.rails_rows import failed_jobs

FILTERS: list[tuple[str, Filter, list[int]]] = [
    ("4b", Filter(error="plain message"), [1]),
    ("4b", Filter(error="PLAIN Message"), [1]),
    ("4b", Filter(error="<b>"), [6]),
    ("4b", Filter(error="&amp;"), [6]),
    ("4b", Filter(error="tab <B>&amp;"), [6]),
    ("4b", Filter(error='"quoted"'), [6]),
    ("4b", Filter(error='"quoted" \\ back'), [6]),
    ("4b", Filter(error="back\nnewline\ttab"), [6]),
    ("4b", Filter(error="unicode ž 日本 💥"), [6]),
    ("4b", Filter(error="nul [\0]"), [7]),
    ("4b", Filter(error="limited_raising_job.rb:3:in `perform'"), [11]),
    ("4b", Filter(error="RetryingJob::Flaky"), [17]),
    ("4b", Filter(error="message%"), []),
    ("4b", Filter(error="plain_message"), []),
    ("4b", Filter(error="CustomError"), [1, 6, 7, 9]),
    ("4b", Filter(queues=("urgent",)), [9]),
    ("4b", Filter(queues=("urg*", "nothing")), [9]),
    ("4b", Filter(queues=("urgent", "default")), [1, 3, 6, 7, 9, 11, 17]),
    ("4b", Filter(queues=("defaul",)), []),
    ("4b", Filter(classes=("RaisingJob",)), [1, 3, 6, 7, 9]),
    ("4b", Filter(classes=("LimitedRaisingJob", "Retrying*")), [11, 17]),
    ("4b", Filter(classes=("RaisingJob",), queues=("default",), error="CustomError"), [1, 6, 7]),
    ("4b", Filter(deaths=frozenset(Death)), []),
    ("2b", Filter(deaths=frozenset({Death.PRUNED})), [1, 2, 5]),
    ("2b", Filter(deaths=frozenset({Death.EXITED, Death.MISSING})), []),
    ("2b", Filter(deaths=frozenset(Death), classes=("SleepJob",)), [1, 2]),
]


@pytest.mark.parametrize("scenario", ["2b", "4b"])
def test_filters_take_what_they_say(left: Database, kind: str, scenario: str) -> None:
    fixture = rails.read(kind, scenario)
    everywhere = {1, 2, 5} if scenario == "2b" else {1, 3, 6, 7, 9, 11, 17}  # PostgreSQL's has more failures than these
    rails.load(left.url, fixture)
    found = [
        (chosen, sorted(everywhere.intersection(failed_jobs(left, chosen))))
        for of, chosen, _ in FILTERS
        if of == scenario
    ]
    assert found == [(chosen, expected) for of, chosen, expected in FILTERS if of == scenario]


def test_a_line_separator_is_looked_for_as_rails_escapes_it(left: Database, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "4b"))
    assert failed_jobs(left, Filter(error="\u2028 end")) == [6]


def test_an_error_that_is_no_json_is_found_by_its_own_text(left: Database, kind: str) -> None:
    fixture = rails.read(kind, "2b")
    rails.row(fixture, "failed_executions", 2)["error"] = 'raw "text" with a \\ and a <'
    rails.load(left.url, fixture)
    for part in ("RAW", "a <", 'raw "text"', "with a \\ and"):
        assert failed_jobs(left, Filter(error=part)) == [2]


DEATHS = {"1d": Death.EXITED, "2b": Death.PRUNED, "3b": Death.MISSING}


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("scenario", DEATHS)
def test_deaths_are_told_apart(left: Database, kind: str, scenario: str) -> None:
    rails.load(left.url, rails.read(kind, scenario))
    everything = rails.reading(kind, scenario).states["failed"]
    for death in Death:
        expected = everything if death is DEATHS[scenario] else []
        assert sorted(failed_jobs(left, Filter(deaths=frozenset({death})))) == expected


OPTIONS = [
    ("postgresql", "1d", "--exited", [9, 8, 7, 6, 3, 1]),
    ("postgresql", "1d", "--died --since 2026-11-23T04:40:10.957729Z --limit 2", [9, 8]),
    ("postgresql", "3b", "--missing --class SleepJob", [2, 1]),
    ("postgresql", "1d", "--since 2026-11-23T05:40:08.944022+01:00 --until 2026-11-23T04:40:12.971292", [7, 6]),
    ("sqlite", "2b", "--pruned --class Limited* --class Sleep* --limit 2", [5, 2]),
    ("sqlite", "4b", "--error '<b>&amp;'", [6]),
    ("mariadb", "4b", "--error '日本 💥 \"quoted\"' --queue default", [6]),
    ("mariadb", "4b", "--queue urg* --class Raising* --page-after 14", [9]),
]


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, *case in OPTIONS])
def test_the_programs_filters(left: Database, jq: Shell, kind: str, case: tuple[str, str, list[int]]) -> None:
    scenario, options, expected = case
    rails.load(left.url, rails.read(kind, scenario))
    ran = jq.run("failed", "list", *shlex.split(options), "-o", "ids")
    assert (ran.returncode, [int(line) for line in ran.stdout.splitlines()]) == (0, expected)


@pytest.mark.only_on("postgresql")
def test_the_next_page_is_named(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "4b"))
    first = jq.run("failed", "list", "--limit", "3", "-o", "ids")
    assert first.stdout.split() == ["12", "17", "15"]
    assert first.stderr == "jq: 10 more; the next page: --page-after 13\n"
    assert failed_jobs(left, limit=3, after=13) == [9, 13, 11]
    assert failed_jobs(left, limit=3, after=4) == [3, 1]


BOUNDARIES = [  # stored, a boundary, whether that failed then or later: it failed before then if not
    ("2026-11-23 04:43:01.200145", "04:43:01.200145", True),
    ("2026-11-23 04:43:01.200145", "04:43:01.200144", True),
    ("2026-11-23 04:43:01.200145", "04:43:01.200146", False),
    ("2026-11-23 04:43:01.200140", "04:43:01.200140", True),
    ("2026-11-23 04:43:01.200", "04:43:01.200000", True),
    ("2026-11-23 04:43:01.200", "04:43:01.199999", True),
    ("2026-11-23 04:43:01.200", "04:43:01.200001", False),
    ("2026-11-23 04:43:01.234", "04:43:01.234000", True),
    ("2026-11-23 04:43:01.234", "04:43:01.234001", False),
    ("2026-11-23 04:43:01.000000", "04:43:01.000000", True),
    ("2026-11-23 04:43:01.000", "04:43:01.000000", True),
    ("2026-11-23 04:43:01.000", "04:43:00.999999", True),
    ("2026-11-23 04:43:01.000", "04:43:01.000001", False),
    ("2026-11-23 04:43:01", "04:43:00.999999", True),
    ("2026-11-23 04:43:01", "04:43:01.000001", False),
    ("2026-11-23 04:43:01", "04:43:01.000000", True),  # Rails writes no fraction for a whole second
]


@pytest.mark.parametrize("case", BOUNDARIES, ids=str)
@pytest.mark.sqlite_only
def test_a_boundary_on_a_rows_own_time(left: Database, kind: str, case: tuple[str, str, bool]) -> None:
    stored, boundary, since = case
    fixture = rails.read(kind, "5c")
    rails.row(fixture, "failed_executions", 1)["created_at"] = stored
    rails.load(left.url, fixture)
    moment = datetime.fromisoformat(f"2026-11-23 {boundary}+00:00")
    assert failed_jobs(left, Filter(since=moment)) == ([4] if since else [])
    assert failed_jobs(left, Filter(until=moment)) == ([] if since else [4])


def test_a_boundary_is_the_same_on_every_database(left: Database, kind: str) -> None:
    fixture = rails.read(kind, "2b")
    for failure_id, at in ((1, "04:43:01.2"), (2, "04:43:01.200001"), (5, "04:43:02")):
        rails.row(fixture, "failed_executions", failure_id)["created_at"] = f"2026-11-23 {at}"
    rails.load(left.url, fixture)
    moment = datetime(2026, 11, 23, 4, 43, 1, 200000, tzinfo=UTC)
    everywhere = {1, 2, 5}
    assert everywhere.intersection(failed_jobs(left, Filter(since=moment))) == {1, 2, 5}
    assert everywhere.intersection(failed_jobs(left, Filter(since=moment + timedelta(microseconds=1)))) == {2, 5}
    assert everywhere.intersection(failed_jobs(left, Filter(until=moment + timedelta(microseconds=2)))) >= {1, 2}
    assert not {1, 2, 5}.intersection(failed_jobs(left, Filter(until=moment)))
