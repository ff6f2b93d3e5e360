"""On databases that Rails left: rows that are damaged or hostile stop nothing, and are shown escaped."""

import csv
import io
import json
import re
from typing import Any

import pytest

from solidjq import Database
from solidjq.database.setup import initialize
from solidjq.database.tables import failures, jobs
from solidjq.queue.failed import Filter
from support import rails
from support.program import Shell
from support.queue import rows
from support.rails_rows import failed_jobs, failure_records, job_views, retry

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
    printed = [records_of(jq, "jobs", "show", "--show-arguments", *ids)]
    if kind == "sqlite":  # the core has read the same on the others
        printed.append(records_of(jq, "failed", "show", "--show-arguments", *ids))
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
    assert nested in run_quietly(jq, "jobs", "show", "--show-arguments", "1")


@pytest.mark.sqlite_only
def test_numbers_that_json_does_not_have_are_not_printed_as_json(left: Database, jq: Shell) -> None:
    rails.load(left.url, with_arguments('{"arguments":[NaN,-Infinity,1e999]}'))

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(run_quietly(jq, "jobs", "show", "1", "-o", "ndjson"), parse_constant=refuse)
