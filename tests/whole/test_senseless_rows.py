"""Rows are not trusted: whatever a column contains, no command fails, and no row stops the prune of another process."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database.tables import claimed, jobs, processes
from solidjq.database.urls import url_text
from solidjq.errors import SolidJQError
from solidjq.runtime.dispatcher import Dispatcher
from solidjq.runtime.wakeup import Wakeup
from solidjq.runtime.worker import Worker
from solidjq_cli import exits, session
from solidjq_cli.exits import Exit
from support.commands import program
from support.every_command import COMMANDS, FOUND, ON_TERMINALS
from support.queue import add_jobs, rows
from support.senseless import damage
from support.servers import execute
from support.waiting import until
from support.worker import notes_to_write

SEED = int(os.environ.get("JQ_TEST_SEED", "1"))
# These make workers, read files, or have a test of their own below.
LEFT_OUT = ("bisect", "work", "apply", "completions")
LISTS = ("list", "show {", "failed diff", "suspects", "history", "--dry-run", "doctor --patience")
ANY = Exit.DONE, Exit.PARTLY


def run(command: str, capsys: pytest.CaptureFixture[str], *also: Exit) -> str:
    """Run a command; return its output. An error that is not one of ours is the test's failure."""
    code = 0
    try:
        program()(command.split(), prog_name="jq")
    except SystemExit as end:
        code = int(end.code or 0)
    except SolidJQError as error:
        code = exits.report(error)
    session.close()
    told = capsys.readouterr()
    # A record that makes no sense is broken, and an operation without a verb cannot be undone.
    broken = code == {"operations verify": Exit.REFUSED, "undo": Exit.USAGE}.get(command.rstrip(" 0123456789"))
    alerts = command.startswith("check ") and code in {1, 2}  # and never unknown
    assert broken or alerts or code in {*ANY, *also}, (command[:200], told.err[-1000:])
    return told.out


def words(command: str, names: dict[str, str]) -> str:
    """Name rows in a command; a class of its own is enqueued, as PlainJob seems to have a concurrency limit."""
    return command.format(**names).replace("enqueue PlainJob", "enqueue OtherJob")


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_no_command_fails_on_senseless_rows(
    database: Database,
    queue_url: URL,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # How JSON is read does not depend on the database; what else a column takes does.
    much = {"values": 6, "json_values": 1} if kind == "sqlite" else {"values": 4, "json_values": 0}
    ids = damage(queue_url, seed=SEED, **much)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(queue_url))
    (tmp_path / "own.toml").touch()
    monkeypatch.setenv("JQ_CONFIG", str(tmp_path / "own.toml"))

    def some(table: str, prefix: str = "", most: int = 500) -> str:
        found = [number for number in ids[table] if number > 0]
        return " ".join(f"{prefix}{number}" for number in found[:: len(found) // most + 1])

    names = {"failed": some("jobs"), "held": some("jobs", most=1), "operation": some("operations", most=1)}
    names |= {"retried": some("jobs", most=1), "death": some("deaths", "d", most=3)}
    commands = [command for command in COMMANDS if not command.startswith(LEFT_OUT) and command not in ON_TERMINALS]
    reading = [command for command in commands if COMMANDS[command] in {FOUND, Exit.PARTLY}]
    for command in reading:
        each = names["death"].split() if command.startswith("incidents report") else [names["death"]]  # one at a time
        for death in each:
            run(words(command, {**names, "death": death}), capsys)
            if command.startswith("incidents report"):
                run(f"{words(command, {**names, 'death': death})} --html -", capsys)
        if any(word in command for word in LISTS):
            json.loads(run(f"{words(command, names)} -o json", capsys), parse_constant=refuse)
    run(f"jobs show {names['failed']} -o json", capsys)
    run(f"operations show {some('operations', most=60)}", capsys)
    for command in commands:
        if command not in reading:
            run(words(command, names), capsys)
            if command.startswith("prune"):
                assert rows(database, processes) == []
                assert rows(database, claimed) == []
    for operation in some("operations", most=10).split():
        run(f"undo {operation}", capsys)


def test_no_plan_or_bisect_fails_on_senseless_rows(
    database: Database,
    queue_url: URL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = damage(queue_url, seed=SEED, values=4, json_values=0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(queue_url))
    (tmp_path / "own.toml").touch()
    monkeypatch.setenv("JQ_CONFIG", str(tmp_path / "own.toml"))
    plan = tmp_path / "plan"
    for verb in ("retry --force --reason x", "discard"):
        run(f"{verb} --class * --plan-out {plan}", capsys)
        run(f"apply {plan} --yes", capsys)
    deaths = [number for number in ids["deaths"] if number > 0]
    for death in deaths[:: len(deaths) // 8]:
        run(f"bisect d{death} --yes --wait 0s", capsys, Exit.REFUSED, Exit.NO_SUCH_JOB)  # no worker polls quarantine


def test_no_senseless_row_stops_a_worker_or_a_dispatcher(worker: Worker, database: Database, queue_url: URL) -> None:
    """Each of them takes what it can, and a job that makes sense is not held up by those that make none."""
    damage(queue_url, seed=SEED, values=4, json_values=1)
    execute(queue_url, "UPDATE solid_queue_jobs SET class_name = 'note' WHERE class_name = 'PlainJob'")
    (sane,) = add_jobs(database, *notes_to_write(1))
    dispatcher = Dispatcher(replace(worker._child_config, kind="Dispatcher", name="dispatcher"), Wakeup())
    while dispatcher.step() == 0:
        pass

    def done() -> bool:
        worker.step()
        with database.read() as connection:
            return connection.scalar(select(jobs.c.finished_at).where(jobs.c.id == sane)) is not None

    until(done, "the job that makes sense has finished")
    dispatcher.database.close()
