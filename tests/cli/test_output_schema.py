"""docs/output.schema.json: every command that prints JSON is in it, and prints what it says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from solidjq import Database, NewJob
from solidjq.database.setup import initialize
from solidjq.database.tables import claimed
from solidjq.database.urls import parse_url, url_text
from solidjq.ledger.operations import list_operations
from solidjq.processes.heartbeat import list_processes
from solidjq.queue import endings
from solidjq.queue.concurrency import Limit
from solidjq_cli.command_tree import tree
from solidjq_cli.output_schema import FIELDS, OF_COMMAND, outputs, schema
from support.commands import leaves, run
from support.night import Night, make_night
from support.processes import add_attendants, add_process, add_worker_of, silence
from support.queue import add_jobs, claim_all

SCHEMA = schema()
# What each command is run with. {killer}: a failed job that died; {other}: one that did not; d1, f1: incidents; {last}:
# the last operation.
READING = {
    "status": [""],
    "failed list": ["", "--died --limit 5", "--error bad --limit 5"],
    "failed show": ["{killer} {other}"],
    "failed diff": ["", "--since 2h --against 1d", "{killer} {other}"],
    "jobs list": ["--limit 20"],
    "jobs show": ["{killer} {other}"],
    "jobs times": [""],
    "queues keys": [""],
    "queues list": [""],
    "processes list": [""],
    "incidents list": [""],
    "incidents show": ["d1 f1"],
    "suspects": ["--all"],
    "doctor": ["", "--list"],
    **{f"check {name}": [""] for name in ("failures", "deaths", "latency", "processes", "dispatcher")},
    **{f"check {name}": [""] for name in ("recurring", "slots", "all")},
    "check alive-file": ["nowhere"],
    "watch": ["--once --since 30d --position watched.json"],
    "wait": ["--idle --timeout 0s"],
    "operations list": [""],
    "operations show": ["1"],
    "operations verify": [""],
    "history": ["{killer}"],
    "policy show": [""],
    "profiles list": [""],
    "config show": [""],
    "config list": [""],
}
# In this order: each finds something to do.
WRITING = {
    "prune": ["--dry-run --alive-threshold 900", "--force --alive-threshold 900"],
    "retry": ["--safe --dry-run", "{killer} --force --reason x"],
    "undo": ["{last}"],
    "discard": ["{other}"],
    "recover": ["--dry-run --force"],
    "bisect": ["d1 --yes --wait 1s"],
    "enqueue": ["PlainJob 7", "PlainJob 8", "PlainJob 9"],
    "jobs stop": ["{killer}"],
    "jobs postpone": ["--to 2h --class PlainJob --yes"],
    "jobs run-now": ["--class PlainJob --yes"],
    "jobs move": ["--to later --class PlainJob --yes"],
    "jobs discard": ["--class PlainJob --yes"],
}
APPLY = "apply"


@pytest.fixture
def kind() -> str:
    """All of this is the same on every database."""
    return "sqlite"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    database = Database(parse_url(f"sqlite:{tmp_path_factory.mktemp('schema')}/queue.sqlite3"))
    initialize(database)
    night = make_night(database, failures=150)
    add_attendants(database)
    limited = NewJob(class_name="LimitedJob", concurrency_key="LimitedJob/1", limit=Limit(1))
    add_jobs(database, limited, limited)
    database.close()
    yield night
    database.close()


@pytest.fixture(autouse=True)
def environment(night: Night, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profiles = '[profiles.night]\ndatabase = "sqlite:night.sqlite3"\n'
    (tmp_path / "jq.toml").write_text(profiles)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(night.database.url))
    monkeypatch.setenv("JQ_CONFIG", str(tmp_path / "jq.toml"))
    monkeypatch.setenv("JQ_PRUNE_FORCE", "1")


def records(command: str, arguments: str, night: Night, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    killer = min(night.killers)
    other = max(night.company | night.outside) + 1
    with night.database.read() as connection:
        last = next((each.id for each in list_operations(connection, limit=1)), 0)
    capsys.readouterr()
    run([*command.split(), *arguments.format(killer=killer, other=other, last=last).split(), "-o", "json"])
    printed = capsys.readouterr()
    assert printed.out, printed.err
    found: list[dict[str, Any]] = json.loads(printed.out)
    assert_valid(command, found)
    return found


def assert_valid(command: str, found: list[dict[str, Any]]) -> None:
    validator = Draft202012Validator({"$ref": f"#/$defs/{command}", "$defs": SCHEMA["$defs"]})
    wrong = [(error.json_path, (error.context or [error])[0].message) for error in validator.iter_errors(found)]
    assert wrong == []


def test_every_command_with_an_output_is_in_the_schema() -> None:
    with_output = {
        " ".join(command.path[1:])
        for command in tree().all()
        if not command.commands and any("--output" in option.names for option in command.options)
    }
    assert with_output <= leaves(tree())
    assert set(outputs()) == with_output
    assert {*READING, *WRITING, APPLY} == with_output


def test_no_field_is_described_that_no_command_prints() -> None:
    printed = {column.name for kinds in outputs().values() for fields in kinds for column in fields.columns}
    assert set(FIELDS) | {name for _, name in OF_COMMAND} == printed


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("command", READING)
def test_a_reading_command_prints_what_the_schema_says(
    command: str, night: Night, capsys: pytest.CaptureFixture[str]
) -> None:
    if command.startswith("operations"):
        assert run(["queues", "pause", "default"]) == 0
        assert run(["queues", "resume", "default"]) == 0
    if command in {"jobs times", "queues keys"}:
        add_jobs(night.database, NewJob(class_name="Limited", concurrency_key="Limited/1", limit=Limit(1)))
    if command == "wait":
        add_jobs(night.database, NewJob(class_name="PlainJob"))
        claim_all(night.database, add_process(night.database, "worker-that-runs", pid=4400), 1)
    assert [bool(records(command, arguments, night, capsys)) for arguments in READING[command]].count(True) >= 1
    if command == "wait":
        night.database.transact(endings.release, claimed.c.job_id > 0)


def test_a_wrong_record_is_noticed() -> None:
    with pytest.raises(AssertionError, match="is not of type"):
        assert_valid("queues list", [{column.name: "x" for column in outputs()["queues list"][0].columns}])


def test_writing_commands_print_what_the_schema_says(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    with night.database.read() as connection:
        for process in list_processes(connection):
            silence(night.database, process.id, 1000)
    for number, queue in enumerate(("default", "quarantine")):
        add_worker_of(night.database, queue, f"worker-{queue}", pid=5000 + number)
    add_process(night.database, "dispatcher", kind="Dispatcher", pid=5003)
    assert run(["init"]) == 0
    for command, several in WRITING.items():
        for arguments in several:
            found = records(command, arguments, night, capsys)
            assert found or command in {"undo", "bisect"}, (command, arguments)
    assert run(["retry", "--safe", "--plan-out", "plan.json"]) == 0
    assert records(APPLY, "plan.json --yes", night, capsys)
