"""On databases that Rails left: every row is loaded as it is stored, and reads right."""

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database.tables import ready, scheduled
from solidjq.processes.heartbeat import list_processes
from solidjq.queue import overview
from support import rails
from support.program import Shell
from support.queue import add_jobs, rows
from support.rails_rows import BEATING, LONG_AGO, by_state, failure_records, job_ids, job_views, shown, written

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
        "last_heartbeat_at": "2026-07-01T12:00:00.000000Z",
        "failure_id": 2,
        "active_job_id": "f4fb28e6-252d-48c8-94d1-ffc71448e6df",
        "priority": 0,
        "enqueued_at": "2026-11-23T04:46:52.665857Z",
        "arguments": [1],
        "progress": None,
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
    rails.row(fixture, "processes", 4)["last_heartbeat_at"] = BEATING
    rails.row(fixture, "processes", 5)["last_heartbeat_at"] = "2020-01-01 12:34:56"  # a whole second has no fraction
    rails.row(fixture, "processes", 6)["last_heartbeat_at"] = LONG_AGO
    rails.load(left.url, fixture)
    with left.read() as connection:
        found = list_processes(connection)
    assert [process.is_alive(300) for process in found] == [True, False, False]
    assert [shown(process.last_heartbeat_at) for process in found] == [
        BEATING.replace(" ", "T").rstrip("0"),
        "2020-01-01T12:34:56",
        "2020-01-01T12:34:56.789",
    ]
