"""On databases that Rails left: everything reads right, and every move leaves what Solid Queue itself would leave."""

import csv
import io
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database.setup import initialize
from solidjq.database.tables import claimed, failed, failures, jobs, operations, processes, ready, scheduled, semaphores
from solidjq.ledger.operations import Operation
from solidjq.processes import pruning
from solidjq.processes.heartbeat import list_processes
from solidjq.queue import dispatch, overview
from solidjq.queue.failed import Filter, list_failures
from solidjq.queue.jobs import JobView, find_jobs
from solidjq.rails.error_text import Death
from support import rails
from support.program import Shell
from support.queue import add_jobs, rows
from support.recovery import Retried, retry_jobs

JQ_TABLES = ["jq_crashes", "jq_deaths", "jq_failures", "jq_operations", "jq_schema_migrations"]
# kind of database -> scenarios of which tests/data/rails says how they read
READINGS = {
    "mariadb": "2b 4b 5a 5c 6",
    "postgresql": "1b 1d 2b 2d 3b 4b 5a 5c 6",
    "sqlite": "2b 4b 5a 5c 6",
}
SCENARIOS = [(kind, scenario) for kind, scenarios in READINGS.items() for scenario in scenarios.split()]
# The program reads each scenario on one database; it starts a little faster on SQLite.
FOR_THE_PROGRAM = [
    *(("postgresql", scenario) for scenario in ("1b", "1d", "2d", "3b")),
    *(("sqlite", scenario) for scenario in ("2b", "4b", "5a", "5c", "6")),
]

LONG_AGO = "2020-01-01 12:34:56.789"
FAR_AHEAD = "2099-01-01 00:00:00.000001"


def shown(value: Any) -> str:
    """Write a value as a reading has it, whether it comes from the core or out of the program's JSON."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case Death():
            return str(value.value)
        case datetime():
            assert value.utcoffset() == timedelta()
            text = value.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
            return text.removeprefix("2026-11-23T")
        case str() if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*[1-9])?Z", value):
            return value.removeprefix("2026-11-23T").removesuffix("Z")
        case other:
            return str(other)


def written(records: list[dict[str, Any]], names: list[str]) -> list[str]:
    return [" ".join(shown(record[name]) for name in names) for record in records]


def by_state(found: list[tuple[str, int]]) -> dict[str, list[int]]:
    states: dict[str, list[int]] = {}
    for state, job_id in sorted(found):
        states.setdefault(state, []).append(job_id)
    return states


def failure_records(database: Database, chosen: Filter | None = None, **settings: int) -> list[dict[str, Any]]:
    found = list_failures(database, chosen or Filter(), **{"limit": None, **settings})
    return [{**asdict(failure.error), **asdict(failure)} for failure in found]


def failed_jobs(database: Database, chosen: Filter | None = None, **settings: int) -> list[int]:
    return [record["job_id"] for record in failure_records(database, chosen, **settings)]


def job_views(database: Database, *ids: str) -> dict[str, list[JobView]]:
    with database.read() as connection:
        return find_jobs(connection, ids)


def job_ids(fixture: rails.Fixture) -> list[str]:
    return [str(job["id"]) for job in fixture["tables"][rails.JOBS]]


def retry(database: Database, *ids: int) -> Retried:
    return retry_jobs(database, ids, Operation("retry", command="jq retry", reason="because"))


@pytest.fixture
def left(empty_url: URL) -> Iterator[Database]:
    """The database of the test's kind, to be loaded with rows; without jq's own tables."""
    opened = Database(empty_url)
    yield opened
    opened.close()


@pytest.fixture
def jq(empty_url: URL, tmp_path: Path) -> Shell:
    """Run ``jq`` as a program on that database."""
    return Shell(empty_url.render_as_string(hide_password=False), tmp_path)


# -- the databases themselves


def as_text(value: Any) -> str | None:
    """Write a value in one way, however the database or the fixture has it."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?", value):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.isoformat(" ", timespec="microseconds")
    return None if value is None else str(value)


@pytest.mark.parametrize("scenario", ["4b", "5a", "5c"])
def test_rows_are_loaded_as_they_are_stored(empty_url: URL, kind: str, scenario: str) -> None:
    fixture = rails.read(kind, scenario)
    rails.load(empty_url, fixture)
    loaded = rails.snapshot(empty_url)
    assert loaded.keys() == fixture["columns"].keys()
    for name, (_, found) in loaded.items():
        given = sorted(fixture["tables"].get(name, []), key=lambda values: int(values["id"]))
        if kind == "sqlite":  # here they were written down with their types
            assert found == given
        assert [{key: as_text(value) for key, value in values.items()} for values in found] == [
            {key: as_text(value) for key, value in values.items()} for values in given
        ]


def test_later_ids_are_beyond_those_that_were_loaded(left: Database, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "5c"))
    assert add_jobs(left, NewJob(class_name="A"), NewJob(class_name="B", delay=60)) == [26, 27]
    assert [execution["id"] for execution in rows(left, ready)] == [6, 7]
    assert [execution["id"] for execution in rows(left, scheduled)] == [2, 3, 4, 5]


def test_a_fixture_goes_only_into_its_own_kind_of_database(empty_url: URL, kind: str) -> None:
    with pytest.raises(ValueError, match="do not go into"):
        rails.load(empty_url, rails.read("sqlite" if kind == "mariadb" else "mariadb", "6"))
    assert rails.snapshot(empty_url) == {}


# -- reading


@pytest.mark.parametrize(("kind", "scenario"), SCENARIOS)
def test_the_core_reads_what_rails_left(left: Database, kind: str, scenario: str) -> None:
    fixture, expected = rails.read(kind, scenario), rails.reading(kind, scenario)
    rails.load(left.url, fixture)
    assert written(failure_records(left), rails.FAILURE) == expected.failures
    with left.read() as connection:
        registered = [{**asdict(process), "process_id": process.id} for process in list_processes(connection)]
        waiting = [{**asdict(found), "queue_name": found.name} for found in overview.list_queues(connection)]
    assert written(registered, rails.PROCESS) == expected.processes
    assert written(waiting, rails.QUEUE) == expected.queues
    views = [view for found in job_views(left, *job_ids(fixture)).values() for view in found]
    assert by_state([(state.value, view.job_id) for view in views for state in view.states]) == expected.states
    assert all(len(view.states) == 1 for view in views)


@pytest.mark.parametrize(("kind", "scenario"), FOR_THE_PROGRAM)
def test_the_program_reads_what_rails_left(left: Database, jq: Shell, kind: str, scenario: str) -> None:
    fixture, expected = rails.read(kind, scenario), rails.reading(kind, scenario)
    rails.load(left.url, fixture)

    def read(*command: str) -> list[dict[str, Any]]:
        ran = jq.run(*command, "-o", "json")
        assert (ran.returncode, ran.stderr) == (0, "")
        return list(json.loads(ran.stdout))

    listed = read("failed", "list")
    assert written(listed, rails.FAILURE) == expected.failures
    assert written(read("processes", "list"), rails.PROCESS) == expected.processes
    assert written(read("queues", "list"), rails.QUEUE) == expected.queues
    views = read("jobs", "show", *job_ids(fixture))
    assert by_state([(view["state"], view["job_id"]) for view in views]) == expected.states
    arguments = {int(job["id"]): json.loads(job["arguments"])["arguments"] for job in fixture["tables"][rails.JOBS]}
    assert {view["job_id"]: view["arguments"] for view in views} == arguments
    if listed:
        details = read("failed", "show", *(str(failure["job_id"]) for failure in listed))
        assert sorted(written(details, rails.FAILURE)) == sorted(expected.failures)
        assert all(failure["arguments"] == arguments[failure["job_id"]] for failure in details)


def test_a_heartbeat_is_read_in_every_time_zone(left: Database, kind: str) -> None:
    fixture = rails.read("postgresql", "2d")
    if kind != "postgresql":  # Rails wrote these on PostgreSQL; the text is the same on every database
        fixture = {**rails.read(kind, "6"), "tables": fixture["tables"]}
    rails.load(left.url, fixture)
    found = {record["job_id"]: record for record in failure_records(left)}
    for job_id, ending in ((1, "12:00:00 UTC)"), (2, "14:00:00 +0200)"), (3, "08:00:00 -0400)")):
        assert found[job_id]["message"].endswith(f"(last heartbeat at: 2026-07-01 {ending}")
    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert [record["last_heartbeat_at"] for record in found.values()] == [noon, noon, noon]


@pytest.mark.only_on("postgresql")
def test_a_record_is_complete(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "2d"))
    (record,) = json.loads(jq.run("failed", "show", "f4fb28e6-252d-48c8-94d1-ffc71448e6df", "-o", "json").stdout)
    assert record == {
        "job_id": 2,
        "class_name": "NoopJob",
        "queue_name": "default",
        "death": "pruned",
        "failed_at": "2026-11-23T04:46:52.736604Z",
        "error_class": "SolidQueue::Processes::ProcessPrunedError",
        "message": "Process was found dead and pruned (last heartbeat at: 2026-07-01 14:00:00 +0200)",
        "pid": None,
        "exit_status": None,
        "signal": None,
        "last_heartbeat_at": "2026-07-01T12:00:00Z",
        "failure_id": 2,
        "active_job_id": "f4fb28e6-252d-48c8-94d1-ffc71448e6df",
        "priority": 0,
        "enqueued_at": "2026-11-23T04:46:52.665857Z",
        "arguments": [1],
        "backtrace": [],
    }


@pytest.mark.only_on("postgresql")
def test_a_table_in_a_pipe_has_tabs_and_whole_values(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "1d"))
    printed = jq.run("failed", "list", "--class", "Exit*").stdout
    header, *found = [line.split("\t") for line in printed.splitlines()]
    assert header == ["job_id", "class_name", "queue_name", "death", "failed_at", "error"]
    assert [line[:5] for line in found] == [
        ["9", "ExitJob", "default", "exited", "2026-11-23T04:40:14.984461Z"],
        ["8", "ExitJob", "default", "exited", "2026-11-23T04:40:12.971292Z"],
        ["7", "ExitJob", "default", "exited", "2026-11-23T04:40:10.957729Z"],
        ["6", "ExitJob", "default", "exited", "2026-11-23T04:40:08.944022Z"],
    ]
    assert [[int(number) for number in re.findall(r"\d+", line[5])] for line in found] == [
        [26535, 0],
        [26490, 9],
        [26447, 11],
        [26407, 3],
    ]


def test_an_error_is_read_to_the_letter(left: Database, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "4b"))
    found = {record["job_id"]: record for record in failure_records(left)}
    errors = json.loads((rails.FOLDER / "errors-4b.json").read_text(encoding="utf-8"))
    assert sorted(found) == rails.reading(kind, "4b").states["failed"]
    for job_id, record in found.items():
        expected = {"exception_class": record["exception_class"], "message": record["message"]}
        assert {**expected, "frame": record["backtrace"][0]} == errors[str(job_id)]
        assert len(record["backtrace"]) == 2


def test_a_job_shows_who_holds_it_and_how_long_it_is_blocked(left: Database, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "5c"))
    pid, claimed_at, blocked_until, finished_at = {
        "postgresql": (27895, "04:41:39.010379", "04:44:28.687744", "04:41:29.77712"),
        "sqlite": (31065, "04:44:48.862", "04:47:38.680591", "04:44:39.709795"),
        "mariadb": (1304, "04:48:00.237336", "04:50:50.797794", "04:47:51.877509"),
    }[kind]
    held, waiting, done, later = (view for found in job_views(left, "5", "6", "7", "2").values() for view in found)
    assert (held.process_id, held.process_hostname, held.process_pid) == (6, "vm", pid)
    assert shown(held.claimed_at) == claimed_at
    assert held.concurrency_key == waiting.concurrency_key == "LimitedJob/k1"
    assert shown(waiting.blocked_until) == blocked_until
    assert shown(done.finished_at) == finished_at
    assert later.scheduled_at == datetime(2031, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)


def test_an_active_job_id_names_every_attempt(left: Database, kind: str) -> None:
    fixture = rails.read(kind, "4b")
    rails.load(left.url, fixture)
    active_job_id = rails.row(fixture, "jobs", 17)["active_job_id"]
    found = job_views(left, active_job_id, "16")
    assert [view.job_id for view in found[active_job_id]] == [10, 16, 17]
    assert [view.job_id for view in found["16"]] == [16]


def test_a_process_is_alive_while_its_heartbeat_is_young(left: Database, kind: str) -> None:
    fixture = rails.read(kind, "5c")
    rails.row(fixture, "processes", 4)["last_heartbeat_at"] = FAR_AHEAD
    rails.row(fixture, "processes", 5)["last_heartbeat_at"] = "2020-01-01 12:34:56"  # a whole second has no fraction
    rails.row(fixture, "processes", 6)["last_heartbeat_at"] = LONG_AGO
    rails.load(left.url, fixture)
    with left.read() as connection:
        found = list_processes(connection)
    assert [process.is_alive(300) for process in found] == [True, False, False]
    assert [shown(process.last_heartbeat_at) for process in found] == [
        "2099-01-01T00:00:00.000001",
        "2020-01-01T12:34:56",
        "2020-01-01T12:34:56.789",
    ]


# -- filters


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
    ("mariadb", "4b", "--queue urg* --class Raising* --after 14", [9]),
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
    assert first.stderr == "jq: 10 more; the next page: --after 13\n"
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


# -- jq init


def test_nothing_needs_jqs_tables_but_a_retry(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "5c"))
    before = rails.snapshot(left.url)
    refused = jq.run("retry", "4")
    assert refused.returncode == 3
    assert refused.stderr.startswith("jq: ")
    assert refused.stderr.endswith("run: jq init\n")
    assert refused.stdout == ""
    assert rails.snapshot(left.url) == before


def test_init_adds_its_own_tables_and_touches_no_other(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "5c"))
    before = rails.snapshot(left.url)
    assert len(before) == 11
    ran = jq.run("init")
    assert ran.returncode == 0
    after = rails.snapshot(left.url)
    assert sorted(after.keys() - before.keys()) == JQ_TABLES
    for name, table in before.items():
        assert after[name] == table
    assert initialize(left) == ([], [])
    assert rails.snapshot(left.url) == after


# -- retry


def test_a_retry_leaves_what_solid_queues_own_leaves(left: Database, kind: str) -> None:
    fixture = rails.read(kind, "4b")
    rails.load(left.url, fixture)
    initialize(left)
    before, began = rails.snapshot(left.url), left.now()
    typed = {name: rows(left, table) for name, table in (("jobs", jobs), ("failed", failed))}
    chosen = [1, 6, 9, 11, 17]
    retried = retry(left, *chosen)
    ended, after = left.now(), rails.snapshot(left.url)
    assert (retried.ready, retried.scheduled) == ([1, 6, 9, 17], [11])

    moved = {
        f"solid_queue_{name}" for name in ("jobs", "ready_executions", "scheduled_executions", "failed_executions")
    }
    for name in after.keys() - moved - set(JQ_TABLES):
        assert after[name] == before[name]
    was = before["solid_queue_failed_executions"][1]
    assert after["solid_queue_failed_executions"][1] == [row for row in was if row["job_id"] not in chosen]

    made = rows(left, ready)
    assert [(row["job_id"], row["queue_name"], row["priority"]) for row in made] == [
        (1, "default", 0),
        (6, "default", 0),
        (9, "urgent", 5),
        (17, "default", 0),
    ]
    (due,) = rows(left, scheduled)
    assert (due["job_id"], due["queue_name"], due["priority"]) == (11, "default", 0)
    assert began <= due["scheduled_at"] <= ended
    assert all(began <= row["created_at"] <= ended for row in [*made, due])

    for old, new in zip(typed["jobs"], rows(left, jobs), strict=True):
        if old["id"] != 17:
            assert new == old
            continue
        assert began <= new["updated_at"] <= ended
        worn = '"executions":2,"exception_executions":{"[RetryingJob::Flaky]":2}'
        assert old["arguments"].count(worn) == 1
        fresh = old["arguments"].replace(worn, '"executions":0,"exception_executions":{}')
        assert new == {**old, "arguments": fresh, "updated_at": new["updated_at"]}

    (operation,) = rows(left, operations)
    assert (operation["verb"], operation["reason"], operation["jobs"]) == ("retry", "because", 5)
    by_id = {job["id"]: job for job in typed["jobs"]}
    kept = sorted(rows(left, failures), key=lambda row: row["failure_id"])
    assert all(began <= row.pop("archived_at") <= ended for row in kept)
    assert [{key: value for key, value in row.items() if key != "id"} for row in kept] == [
        {
            "failure_id": failure["id"],
            "job_id": failure["job_id"],
            "active_job_id": by_id[failure["job_id"]]["active_job_id"],
            "queue_name": by_id[failure["job_id"]]["queue_name"],
            "class_name": by_id[failure["job_id"]]["class_name"],
            "error": failure["error"],
            "failed_at": failure["created_at"],
            "operation_id": operation["id"],
            "restored_by": None,
            "more": None,
            **{
                key: by_id[failure["job_id"]][key]
                for key in ("arguments", "priority", "concurrency_key", "scheduled_at", "updated_at")
            },
            "enqueued_at": by_id[failure["job_id"]]["created_at"],
        }
        for failure in typed["failed"]
        if failure["job_id"] in chosen
    ]
    given = {int(row["job_id"]): row["error"] for row in fixture["tables"]["solid_queue_failed_executions"]}
    assert {row["job_id"]: row["error"] for row in kept} == {job_id: given[job_id] for job_id in chosen}


def test_a_second_retry_changes_nothing(left: Database, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "4b"))
    initialize(left)
    assert retry(left, 1, 11, 17).job_ids == [1, 11, 17]
    before = rails.snapshot(left.url)
    assert retry(left, 1, 11, 17).job_ids == []
    assert rails.snapshot(left.url) == before


@pytest.mark.only_on("mariadb")
def test_the_program_says_why_it_retries_nothing(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "4b"))
    initialize(left)
    retry(left, 1, 11, 17)
    before = rails.snapshot(left.url)
    ran = jq.run("retry", "1", "11", "17", "10")
    assert ran.returncode == 6
    assert ran.stderr.splitlines() == [
        "jq: no failed jobs to retry",
        "jq: job 1 is ready, not failed",
        "jq: job 11 is scheduled, not failed",
        "jq: job 17 is ready, not failed",
        "jq: job 10 is finished, not failed",
    ]
    assert rails.snapshot(left.url) == before


def test_the_program_retries_the_ids_it_reads(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, rails.read(kind, "2b"))
    initialize(left)
    names = "".join(f"{job_id}\n" for job_id in failed_jobs(left, Filter(deaths=frozenset({Death.PRUNED}))))
    ran = jq.run("retry", "-", "-o", "json", "--reason", "host was rebooted", stdin=names)
    assert ran.returncode == 0
    expected = {
        job_id: "scheduled" if job_id == 5 else "ready" for job_id in rails.reading(kind, "2b").states["failed"]
    }
    assert {job["job_id"]: job["state"] for job in json.loads(ran.stdout)} == expected
    assert (
        ran.stderr
        == f"jq: retried {len(expected)} jobs: {len(expected) - 1} ready, 1 scheduled; to take it back: jq undo 1\n"
    )
    (operation,) = rows(left, operations)
    assert (operation["verb"], operation["reason"]) == ("retry", "host was rebooted")


@pytest.mark.parametrize("command", ["retry --safe --yes", "discard --died --yes"])
@pytest.mark.parametrize("scenario", ["2b", "5c"])
def test_an_undo_leaves_every_row_as_rails_wrote_it(
    left: Database, jq: Shell, kind: str, scenario: str, command: str
) -> None:
    rails.load(left.url, rails.read(kind, scenario))
    initialize(left)
    before = rails.snapshot(left.url)
    moved = len(failed_jobs(left, Filter(deaths=frozenset(Death))))
    done = jq.run(*command.split())
    assert (done.returncode, failed_jobs(left, Filter(deaths=frozenset(Death)))) == (0, [])
    undone = jq.run("undo", "1")
    assert (undone.returncode, undone.stderr) == (0, f"jq: took back {moved} jobs of operation 1\n")
    after = rails.snapshot(left.url)
    theirs = before.keys() - set(JQ_TABLES)
    assert {name: after[name][1] for name in theirs} == {name: before[name][1] for name in theirs}
    assert moved


@pytest.mark.parametrize("number", [19, 20])
def test_a_retry_changes_nothing_else_in_the_arguments(left: Database, kind: str, number: int) -> None:
    fixture = rails.read(kind, "5a")  # 19: escapes and emoji; 20: numbers that no float can hold
    tables = fixture["tables"]
    tables["solid_queue_ready_executions"] = [
        row for row in tables["solid_queue_ready_executions"] if int(row["job_id"]) != number
    ]
    job = rails.row(fixture, "jobs", number)
    given = job["arguments"]
    counters = '"executions":0,"exception_executions":{}'
    assert given.count(counters) == 1
    job["arguments"] = given.replace(counters, '"executions":4,"exception_executions":{"[A, \\"B\\"]":3,"[C]":1}')
    tables["solid_queue_failed_executions"] = [
        {"id": 1, "job_id": number, "error": None, "created_at": job["created_at"]}
    ]
    rails.load(left.url, fixture)
    initialize(left)
    assert retry(left, number).ready == [number]
    (after,) = (row for row in rows(left, jobs) if row["id"] == number)
    assert after["arguments"] == given
    (kept,) = rows(left, failures)
    assert kept["error"] is None


def test_a_job_whose_time_has_not_come_waits_for_it(left: Database, kind: str) -> None:
    fixture = rails.read(kind, "4b")
    for number in (1, 11):
        rails.row(fixture, "jobs", number)["scheduled_at"] = FAR_AHEAD
    rails.load(left.url, fixture)
    initialize(left)
    retried = retry(left, 1, 11, 17)
    assert (retried.ready, sorted(retried.scheduled)) == ([17], [1, 11])
    assert [(row["job_id"], shown(row["scheduled_at"])) for row in rows(left, scheduled)] == [
        (1, "2099-01-01T00:00:00.000001"),
        (11, "2099-01-01T00:00:00.000001"),
    ]


# -- prune


PRUNED = (
    '{"exception_class":"SolidQueue::Processes::ProcessPrunedError","message":"Process was found dead and pruned '
    '(last heartbeat at: 2020-01-01 12:34:56 UTC)","backtrace":null}'
)
MISSING = (
    '{"exception_class":"SolidQueue::Processes::ProcessMissingError","message":"The process that was running this job '
    'no longer exists","backtrace":null}'
)


def limited_job_in_dead_hands(kind: str) -> rails.Fixture:
    """5c: job 5 holds the one slot of LimitedJob/k1, claimed by process 6; jobs 6 and 25 wait for it."""
    fixture = rails.read(kind, "5c")
    for process_id, beat in ((4, FAR_AHEAD), (5, FAR_AHEAD), (6, LONG_AGO)):
        rails.row(fixture, "processes", process_id)["last_heartbeat_at"] = beat
    return fixture


def assert_failed_and_next_let_in(
    left: Database, before: dict[str, Any], began: datetime, *, error: str, priorities: dict[int, int], unblocked: int
) -> None:
    """Check every table after job 5 failed: its slot went to the next blocked job, and nothing else happened."""
    ended, after = left.now(), rails.snapshot(left.url)
    changed = ("claimed_executions", "failed_executions", "blocked_executions", "ready_executions", "semaphores")
    for name in after.keys() - {f"solid_queue_{name}" for name in (*changed, "processes")}:
        assert after[name] == before[name]
    assert rows(left, claimed) == []
    _, failure = rows(left, failed)
    assert (failure["job_id"], failure["error"]) == (5, error)
    assert began <= failure["created_at"] <= ended
    assert after["solid_queue_failed_executions"][1][0] == before["solid_queue_failed_executions"][1][0]
    _, let_in = rows(left, ready)
    assert (let_in["job_id"], let_in["queue_name"], let_in["priority"]) == (unblocked, "default", priorities[unblocked])
    assert began <= let_in["created_at"] <= ended
    waiting = before["solid_queue_blocked_executions"][1]
    assert after["solid_queue_blocked_executions"][1] == [row for row in waiting if row["job_id"] != unblocked]
    semaphore, other = rows(left, semaphores)
    assert (semaphore["key"], semaphore["value"]) == ("LimitedJob/k1", 0)
    about = timedelta(minutes=3)
    slack = timedelta(milliseconds=10)
    assert began + about - slack <= semaphore["expires_at"] <= ended + about + slack
    old, untouched = before["solid_queue_semaphores"][1]
    assert after["solid_queue_semaphores"][1][0] == {
        **old,
        "expires_at": after["solid_queue_semaphores"][1][0]["expires_at"],
    }
    assert after["solid_queue_semaphores"][1][1] == untouched
    assert other["key"] == "LimitedJob/k2"


@pytest.mark.parametrize(
    ("priorities", "unblocked"),
    [({6: 0, 25: 0}, 6), ({6: 5, 25: -1}, 25), ({6: 7, 25: 7}, 6), ({6: -2, 25: -1}, 6)],
)
def test_a_dead_process_is_pruned_as_solid_queue_does_it(
    left: Database, kind: str, priorities: dict[int, int], unblocked: int
) -> None:
    fixture = limited_job_in_dead_hands(kind)
    for row in fixture["tables"]["solid_queue_blocked_executions"]:
        row["priority"] = priorities[int(row["job_id"])]
    rails.load(left.url, fixture)
    before, began = rails.snapshot(left.url), left.now()
    (pruned,) = pruning.prune(left, 300)
    assert (pruned.process_id, pruned.kind, pruned.job_ids) == (6, "Worker", [5])
    assert [process["id"] for process in rows(left, processes)] == [4, 5]
    assert_failed_and_next_let_in(left, before, began, error=PRUNED, priorities=priorities, unblocked=unblocked)
    assert list(pruning.prune(left, 300)) == []
    assert pruning.fail_orphans(left) == []


@pytest.mark.only_on("postgresql")
def test_the_program_prunes_without_jqs_tables(left: Database, jq: Shell, kind: str) -> None:
    fixture = limited_job_in_dead_hands(kind)
    rails.load(left.url, fixture)
    before, began = rails.snapshot(left.url), left.now()
    ran = jq.run("prune", "-o", "json")
    assert ran.returncode == 0
    dead = rails.row(fixture, "processes", 6)
    assert json.loads(ran.stdout) == [
        {
            "process_id": 6,
            "kind": "Worker",
            "name": dead["name"],
            "hostname": "vm",
            "pid": int(dead["pid"]),
            "last_heartbeat_at": "2020-01-01T12:34:56.789Z",
            "failed": 1,
            "job_ids": [5],
        }
    ]
    assert_failed_and_next_let_in(left, before, began, error=PRUNED, priorities={6: 0}, unblocked=6)
    assert written(failure_records(left)[:1], rails.FAILURE[1:-1]) == [
        "5 LimitedJob default 0 pruned - - - 2020-01-01T12:34:56"
    ]


def test_an_orphaned_claim_fails_in_solid_queues_words(left: Database, jq: Shell, kind: str) -> None:
    fixture = limited_job_in_dead_hands(kind)
    fixture["tables"]["solid_queue_processes"].remove(rails.row(fixture, "processes", 6))
    rails.load(left.url, fixture)
    before, began = rails.snapshot(left.url), left.now()
    ran = jq.run("prune", "-o", "json")
    assert ran.returncode == 0
    (pruned,) = json.loads(ran.stdout)
    assert (pruned["process_id"], pruned["failed"], pruned["job_ids"]) == (None, 1, [5])
    assert_failed_and_next_let_in(left, before, began, error=MISSING, priorities={6: 0}, unblocked=6)
    assert failed_jobs(left, Filter(deaths=frozenset({Death.MISSING}))) == [5]


def test_a_claim_of_no_process_fails_too(left: Database, kind: str) -> None:
    fixture = limited_job_in_dead_hands(kind)
    rails.row(fixture, "processes", 6)["last_heartbeat_at"] = FAR_AHEAD
    rails.row(fixture, "claimed_executions", 21)["process_id"] = None
    rails.load(left.url, fixture)
    before, began = rails.snapshot(left.url), left.now()
    assert list(pruning.prune(left, 300)) == []
    assert pruning.fail_orphans(left) == [5]
    assert_failed_and_next_let_in(left, before, began, error=MISSING, priorities={6: 0}, unblocked=6)
    assert [process["id"] for process in rows(left, processes)] == [4, 5, 6]


# -- dispatch


def test_dispatch_leaves_a_limited_job_of_a_ruby_class_to_rails(left: Database, kind: str) -> None:
    fixture = rails.read(kind, "5a")
    for execution in fixture["tables"]["solid_queue_scheduled_executions"]:
        execution["scheduled_at"] = LONG_AGO if int(execution["job_id"]) in {3, 24} else FAR_AHEAD
    rails.load(left.url, fixture)
    before = rails.snapshot(left.url)
    assert left.transact(dispatch.dispatch, 100) == [24]
    after = rails.snapshot(left.url)
    for name in after.keys() - {"solid_queue_scheduled_executions", "solid_queue_ready_executions"}:
        assert after[name] == before[name]
    was = before["solid_queue_scheduled_executions"][1]
    assert after["solid_queue_scheduled_executions"][1] == [row for row in was if row["job_id"] != 24]
    *old, new = after["solid_queue_ready_executions"][1]
    assert old == before["solid_queue_ready_executions"][1]
    assert (new["job_id"], new["queue_name"], new["priority"]) == (24, "default", 0)
    assert left.transact(dispatch.dispatch, 100) == []


# -- damaged rows


NESTED = "[" * 100 + "]" * 100
HOSTILE = "\x1b[31mred\x1b[0m \x07\x08\x1b]0;title\x07 \x7f \x9b2J \u202eevil"
ESCAPED = r"\x1b[31mred\x1b[0m \x07\x08\x1b]0;title\x07 \x7f \x9b2J \u202eevil"

# error as stored -> exception class and message as read
DAMAGED_ERRORS: list[tuple[str | None, str | None, str | None]] = [
    (None, None, None),
    ("", None, None),
    ("not JSON", None, "not JSON"),
    ("[1]", None, "[1]"),
    ('"x"', None, '"x"'),
    ("null", None, "null"),
    ("{}", None, "{}"),
    ('{"exception_class":"E","message":"cut off in the mid', "E", "cut off in the mid"),
    ('{"exception_class":"E","message":"cut off in \\u00', "E", "cut off in \\u00"),
    ('{"exception_class":"E","message":"half a \\ud83d', "E", "half a \ud83d"),
    ('{"exception_class":"E","mess', "E", None),
    ('{"exception_class":"Cut', None, '{"exception_class":"Cut'),
    ('{"exception_class":null,"message":"no class","backtrace":null}', None, "no class"),
    ('{"exception_class":"E","message":42,"backtrace":null}', "E", "42"),
    ('{"exception_class":"E","message":"a string","backtrace":"one line"}', "E", "a string"),
    (f'{{"exception_class":"E","message":{NESTED},"backtrace":null}}', "E", NESTED),
    (NESTED, None, NESTED),
    (json.dumps({"exception_class": HOSTILE, "message": HOSTILE, "backtrace": [HOSTILE]}), HOSTILE, HOSTILE),
    (HOSTILE, None, HOSTILE),
    (
        (
            '{"exception_class":"SolidQueue::Processes::ProcessPrunedError",'
            '"message":"last heartbeat at: 2026-13-23 24:60:00 UTC"}'
        ),
        "SolidQueue::Processes::ProcessPrunedError",
        "last heartbeat at: 2026-13-23 24:60:00 UTC",
    ),
]

# arguments as stored -> as shown
DAMAGED_ARGUMENTS: list[tuple[str | None, Any]] = [
    (None, None),
    ("", ""),
    ("not JSON", "not JSON"),
    ("[1]", "[1]"),
    ('{"arguments":[1,', '{"arguments":[1,'),
    ('{"job_class":"A"}', None),
    ('{"arguments":"x"}', "x"),
    (f'{{"arguments":{NESTED}}}', json.loads(NESTED)),
    (json.dumps({"arguments": [HOSTILE, {HOSTILE: 1}]}), [HOSTILE, {HOSTILE: 1}]),
    (HOSTILE, HOSTILE),
]

FIRST = 101  # the first damaged job's id


def damaged(kind: str) -> rails.Fixture:
    """2b, with a failed job for each damaged error and each damaged payload."""
    fixture = rails.read(kind, "2b")
    job, failure = rails.row(fixture, "jobs", 1), rails.row(fixture, "failed_executions", 1)
    cases = [
        *({"error": error} for error, _, _ in DAMAGED_ERRORS),
        *({"arguments": arguments} for arguments, _ in DAMAGED_ARGUMENTS),
        {"class_name": HOSTILE},
        {"queue_name": HOSTILE},
    ]
    for number, case in enumerate(cases, start=FIRST):
        changed = {"id": number, "active_job_id": f"damaged-{number}", "job_id": number, **case}
        fixture["tables"][rails.JOBS].append({key: changed.get(key, value) for key, value in job.items()})
        fixture["tables"]["solid_queue_failed_executions"].append(
            {key: changed.get(key, value) for key, value in failure.items()}
        )
    return fixture


def with_arguments(arguments: str) -> rails.Fixture:
    """2b on SQLite, with these arguments in job 1."""
    fixture = rails.read("sqlite", "2b")
    rails.row(fixture, "jobs", 1)["arguments"] = arguments
    return fixture


def numbers() -> list[int]:
    return list(range(FIRST, FIRST + len(DAMAGED_ERRORS) + len(DAMAGED_ARGUMENTS) + 2))


def run_quietly(jq: Shell, *command: str) -> str:
    """Run a command that must neither fail nor let anything through to the terminal."""
    ran = jq.run(*command)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2028]", ran.stdout)
    return ran.stdout


def records_of(jq: Shell, *command: str) -> dict[int, dict[str, Any]]:
    return {record["job_id"]: record for record in json.loads(run_quietly(jq, *command, "-o", "json"))}


def test_the_core_reads_damaged_rows_as_they_are(left: Database, kind: str) -> None:
    rails.load(left.url, damaged(kind))
    found = {record["job_id"]: record for record in failure_records(left)}
    errors = dict(enumerate(DAMAGED_ERRORS, start=FIRST))
    for job_id, (error, name, message) in errors.items():
        assert (found[job_id]["exception_class"], found[job_id]["message"]) == (name, message)
        assert found[job_id]["last_heartbeat_at"] is None
        assert job_views(left, str(job_id))[str(job_id)][0].error == error
    assert [found[job_id]["backtrace"] for job_id in errors if found[job_id]["backtrace"]] == [(HOSTILE,)]
    for job_id, (arguments, _) in enumerate(DAMAGED_ARGUMENTS, start=FIRST + len(errors)):
        assert found[job_id]["arguments"] == arguments
    assert [found[job_id]["class_name"] for job_id in numbers()].count(HOSTILE) == 1
    assert failed_jobs(left, Filter(queues=(HOSTILE,))) == numbers()[-1:]
    assert failed_jobs(left, Filter(classes=(HOSTILE,))) == numbers()[-2:-1]


def test_the_program_shows_damaged_rows_as_they_are(left: Database, jq: Shell, kind: str) -> None:
    rails.load(left.url, damaged(kind))
    ids = [str(number) for number in numbers()]
    errors = {FIRST + i: (name, message) for i, (_, name, message) in enumerate(DAMAGED_ERRORS)}
    arguments = {FIRST + len(errors) + i: value for i, (_, value) in enumerate(DAMAGED_ARGUMENTS)}
    printed = [records_of(jq, "jobs", "show", *ids)]
    if kind == "sqlite":  # the core has read the same on the others
        printed.append(records_of(jq, "failed", "show", *ids))
        assert [found["backtrace"] for found in printed[1].values() if found["backtrace"]] == [[HOSTILE]]
    for records in printed:
        assert sorted(records) == numbers()
        assert {i: (records[i]["error_class"], records[i]["message"]) for i in errors} == errors
        assert {i: records[i]["arguments"] for i in arguments} == arguments
        assert records[numbers()[-2]]["class_name"] == records[numbers()[-1]]["queue_name"] == HOSTILE


@pytest.mark.sqlite_only
@pytest.mark.parametrize("command", ["failed list", "failed show", "jobs show"])
def test_damaged_rows_are_printed_in_every_format(left: Database, jq: Shell, kind: str, command: str) -> None:
    rails.load(left.url, damaged(kind))
    ids = [str(number) for number in numbers()]
    listed = command == "failed list"
    words = command.split() if listed else [*command.split(), *ids]
    expected = ["1", "2", "5", *ids] if listed else ids
    assert sorted(run_quietly(jq, *words, "-o", "ids").split(), key=int) == expected
    records = [json.loads(line) for line in run_quietly(jq, *words, "-o", "ndjson").splitlines()]
    if listed:
        assert json.loads(run_quietly(jq, *words, "-o", "json")) == records
    assert sorted(record["job_id"] for record in records) == [int(number) for number in expected]
    header, *values = csv.reader(io.StringIO(run_quietly(jq, *words, "-o", "csv")))
    assert header == list(records[0])
    assert [row[header.index("job_id")] for row in values] == [str(record["job_id"]) for record in records]
    assert ESCAPED in {row[header.index("class_name")] for row in values}
    table = run_quietly(jq, *words)
    assert ESCAPED in table
    if listed:
        assert [line.count("\t") for line in table.splitlines()] == [5] * (1 + len(expected))
    else:
        assert len(table.split("\n\n")) == len(expected)


@pytest.mark.sqlite_only
def test_queues_and_processes_of_damaged_rows(left: Database, jq: Shell, kind: str) -> None:
    fixture = damaged(kind)
    rails.row(fixture, "processes", 7).update(dict.fromkeys(("name", "hostname", "metadata", "kind"), HOSTILE))
    rails.load(left.url, fixture)
    names = [record["queue_name"] for record in json.loads(run_quietly(jq, "queues", "list", "-o", "json"))]
    assert sorted(names) == sorted(["default", HOSTILE])
    assert ESCAPED in run_quietly(jq, "queues", "list")
    last = json.loads(run_quietly(jq, "processes", "list", "-o", "json"))[-1]
    assert [last[key] for key in ("name", "hostname", "metadata", "kind")] == [HOSTILE] * 4
    assert ESCAPED in run_quietly(jq, "processes", "list")


def test_damaged_rows_are_retried_as_they_are(left: Database, kind: str) -> None:
    fixture = damaged(kind)
    rails.load(left.url, fixture)
    initialize(left)
    assert retry(left, *numbers()).ready == numbers()
    given = {row["id"]: row["arguments"] for row in fixture["tables"][rails.JOBS] if row["id"] in numbers()}
    assert {row["id"]: row["arguments"] for row in rows(left, jobs) if row["id"] in given} == given
    errors = {row["job_id"]: row["error"] for row in fixture["tables"]["solid_queue_failed_executions"]}
    assert {row["job_id"]: row["error"] for row in rows(left, failures)} == {i: errors[i] for i in numbers()}


@pytest.mark.sqlite_only
def test_arguments_nested_too_deep_to_read_hold_no_retry_up(left: Database) -> None:
    rails.load(left.url, with_arguments('{"executions":1,"arguments":' + "[" * 5000 + "]" * 5000 + "}"))
    initialize(left)
    assert retry(left, 1, 2).ready == [1, 2]


@pytest.mark.sqlite_only
@pytest.mark.parametrize("levels", [900, 5000])
def test_arguments_nested_deep_are_shown(left: Database, jq: Shell, levels: int) -> None:
    nested = "[" * levels + "]" * levels
    rails.load(left.url, with_arguments(f'{{"arguments":{nested}}}'))
    assert nested in run_quietly(jq, "jobs", "show", "1")


@pytest.mark.sqlite_only
def test_numbers_that_json_does_not_have_are_not_printed_as_json(left: Database, jq: Shell) -> None:
    rails.load(left.url, with_arguments('{"arguments":[NaN,-Infinity,1e999]}'))

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(run_quietly(jq, "jobs", "show", "1", "-o", "ndjson"), parse_constant=refuse)
