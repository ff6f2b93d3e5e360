"""What the commands print: for people, for scripts, and never what a terminal or a log should not see."""

import csv
import io
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from sqlalchemy import select, update

from solidjq import Database, NewJob
from solidjq.database.setup import initialize
from solidjq.database.tables import failures, jobs, operations, pauses, scheduled
from solidjq.database.tables import processes as process_table
from solidjq.database.urls import parse_url, url_text
from solidjq.queue.concurrency import Limit
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json, missing_error, pruned_error
from solidjq.text import one_line
from solidjq_cli.exits import Exit
from support.processes import add_attendants, add_process, silence
from support.program import Bare, Shell, assert_refused
from support.queue import add_jobs, claim_all, fail, plain_jobs, rows, state_of_each
from support.rails import snapshot
from support.recovery import last_line
from support.scenes import LEAKY, NASTY, hostile_rows
from support.terminal import below_heading, raw_terminal, terminal, unprintable

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
AGE = re.compile(r"\d+[smhd] ago")
MOVING = {"heartbeat_age", "latency"}  # differ from one call to the next


@pytest.fixture
def kind() -> str:
    """All of this is the same on every database."""
    return "sqlite"


def read_json(shell: Shell, *command: str) -> list[dict[str, Any]]:
    """Run a command with JSON for output, and read it."""
    done = shell.run(*command, "-o", "json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


# -- every command that reads, in every format, on one queue with something of every kind in it

READING = {
    "failed list": ["failed", "list"],
    "failed show": ["failed", "show", "1", "2", "3", "4", "5", "6", "7"],
    "jobs show": ["jobs", "show", *map(str, range(1, 13))],
    "processes list": ["processes", "list"],
    "queues list": ["queues", "list"],
    "prune": ["prune", "--dry-run", "--alive-threshold", "900"],
}
LISTS = [name for name in READING if not name.endswith("show")]


def each(commands: Iterable[str]) -> pytest.MarkDecorator:
    """Test each of these commands; all tests of one in the same process, so that it runs once."""
    return pytest.mark.parametrize(
        "command", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in commands]
    )


@dataclass
class Screens:
    """What the commands print in each format, into a pipe and on a terminal; each runs when it is first asked for."""

    database: Database
    folder: Path
    printed: dict[str, dict[str, str]] = field(default_factory=dict)
    changed: dict[str, bool] = field(default_factory=dict)

    def of(self, command: str) -> dict[str, str]:
        if command not in self.printed:
            before = snapshot(self.database.url)
            self.printed[command] = dict(self._run(READING[command]))
            self.changed[command] = snapshot(self.database.url) != before
        return self.printed[command]

    def records(self, command: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.of(command)["json"])
        return found

    def _run(self, command: list[str]) -> Iterator[tuple[str, str]]:
        url = url_text(self.database.url)
        # What could tempt a program into colour, or into cutting lines.
        forced = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm-256color", "COLUMNS": "40"}
        for output in ("json", "ndjson", "csv", "ids", "table"):
            typed = [] if output == "table" else ["-o", output]
            done = Shell(url, self.folder, forced).run(*command, *typed)
            assert (done.returncode, unprintable(done.stderr)) == (0, set()), done.stderr
            yield output, done.stdout
        yield "terminal", terminal(Shell(url, self.folder), *command)


@pytest.fixture(scope="module")
def screens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screens]:
    folder = tmp_path_factory.mktemp("screens")
    database = Database(parse_url(f"sqlite:{folder}/queue.sqlite3"))
    initialize(database)
    hostile_rows(database)
    yield Screens(database, folder)
    database.close()


@each(READING)
def test_one_set_of_fields_in_every_format(screens: Screens, command: str) -> None:
    printed, records = screens.of(command), screens.records(command)
    (names,) = {tuple(record) for record in records}
    lines = [json.loads(line) for line in printed["ndjson"].splitlines()]
    assert [tuple(line) for line in lines] == [names] * len(records)
    head, *table = csv.reader(io.StringIO(printed["csv"]))
    assert tuple(head) == names
    for record, line, row in zip(records, lines, table, strict=True):
        for name, cell in zip(names, row, strict=True):
            if name not in MOVING:
                assert line[name] == record[name]
                assert_cell(cell, record[name])
    assert printed["ids"] == "".join(f"{number}\n" for record in records for number in ids_of(record))


@each(LISTS)
def test_a_table_in_a_pipe_is_lines_of_tab_separated_whole_values(screens: Screens, command: str) -> None:
    head, *table = (line.split("\t") for line in screens.of(command)["table"].splitlines())
    for record, row in zip(screens.records(command), table, strict=True):
        assert set(head) <= set(record)
        for name, cell in zip(head, row, strict=True):
            assert_cell(cell, record[name])


def assert_cell(cell: str, value: Any) -> None:
    """Check that a cell of CSV, or of a table in a pipe, says the same as JSON."""
    match value:
        case None:
            assert cell == ""
        case bool():
            assert cell == str(value).lower()
        case str():
            assert cell == one_line(value)
        case list() | dict():
            assert json.loads(cell) == value
        case _:
            assert cell == str(value)


def ids_of(record: dict[str, Any]) -> list[int]:
    """Return what -o ids prints for a record."""
    if "job_ids" in record:
        return list(record["job_ids"])
    if "job_id" in record:
        return [record["job_id"]]
    return [record["process_id"]] if "process_id" in record else []


@each(READING)
def test_times_are_rfc_3339_in_utc_and_in_a_pipe_there_is_neither_colour_nor_cut(
    screens: Screens, command: str
) -> None:
    times = [
        value
        for record in screens.records(command)
        for name, value in record.items()
        if name.endswith(("_at", "_until")) and value is not None
    ]
    assert times
    assert [time for time in times if not TIME.fullmatch(time)] == []
    for output in ("json", "ndjson", "csv", "ids", "table"):
        assert "…" not in screens.of(command)[output]
        assert not AGE.search(screens.of(command)[output])


@each(READING)
def test_no_control_character_from_a_row_is_printed_raw(screens: Screens, command: str) -> None:
    for output, text in screens.of(command).items():
        assert unprintable(text.replace("\t", "") if output == "table" else text) == set(), output
        assert output == "ids" or "\\x1b[31m" in text or "\\u001b[31m" in text, output
    assert any(value.endswith(NASTY) for record in screens.records(command) for value in strings_in(record))


@each(READING)
def test_no_password_in_a_row_is_printed(screens: Screens, command: str) -> None:
    for output, text in screens.of(command).items():
        assert "hunter2" not in text
        assert output in {"ids", "terminal"} or "postgres://app:***@db/app" in text


def strings_in(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from strings_in(item)
        case dict():
            yield from strings_in([*value.keys(), *value.values()])


@each(READING)
def test_reading_changes_nothing(screens: Screens, command: str) -> None:
    assert screens.of(command)
    assert not screens.changed[command]


# -- for scripts


@pytest.mark.parametrize("command", LISTS)
def test_an_empty_queue_is_an_empty_list(shell: Shell, command: str) -> None:
    listed, table = (shell.run(*READING[command], "-o", output) for output in ("json", "table"))
    assert (listed.returncode, json.loads(listed.stdout), listed.stderr) == (0, [], "")
    assert (table.returncode, len(table.stdout.splitlines())) == (0, 1)
    # A heading that counts says it; otherwise a line below does.
    assert table.stderr == "" if table.stdout.startswith("0 ") else re.fullmatch("jq: no .+\n", table.stderr)


def test_a_long_message_comes_out_whole(database: Database, shell: Shell) -> None:
    message = " ".join(f"word{number}" for number in range(700))
    assert len(message) > 5000
    fail(database, NewJob(class_name="A"), error=error_json("E", message))
    for command in (["failed", "list"], ["failed", "show", "1"]):
        for output in ("json", "csv", "table"):
            assert message in shell.run(*command, "-o", output).stdout


def test_a_password_in_the_key_of_an_argument_is_masked_too(database: Database, shell: Shell) -> None:
    add_jobs(database, NewJob(class_name="A", args=[{LEAKY: 1}], kwargs={LEAKY: 1}))
    for output in ("json", "table"):
        shown = shell.run("jobs", "show", "1", "-o", output).stdout
        assert "postgres://app:***@db/app" in shown
        assert "hunter2" not in shown


def test_a_note_stands_on_stderr_only(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(3), error=missing_error())
    done = shell.run("failed", "list", "-o", "json", "--limit", "2")
    assert [record["job_id"] for record in json.loads(done.stdout)] == [3, 2]
    assert done.stderr == "jq: 1 more; the next page: --page-after 2\n"


@pytest.mark.sqlite_only
def test_a_death_is_named_by_its_error_class_in_every_output(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(1), error=pruned_error(datetime(2026, 11, 23, 4, 40, 22, tzinfo=UTC)))
    heading, row = (line.split("\t") for line in shell.run("failed", "list").stdout.splitlines())
    words = "ProcessPrunedError: last heartbeat at 2026-11-23 04:40:22 UTC"
    assert row[heading.index("error")] == words
    (record,) = json.loads(shell.run("failed", "list", "-o", "json").stdout)
    assert (record["death"], record["error"]) == ("pruned", words)


def test_all_pages_together_are_every_failure_once(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(10), error=missing_error())
    pages: list[list[int]] = []
    left = [10]
    after: list[str] = []
    while len(pages) < 10:
        done = shell.run("failed", "list", "--limit", "3", "-o", "ids", *after)
        pages.append([int(line) for line in done.stdout.split()])
        if not done.stderr:
            break
        note = re.fullmatch(r"jq: (\d+) more; the next page: (--page-after \d+)\n", done.stderr)
        assert note
        left.append(int(note[1]))
        after = note[2].split()
    assert pages == [[10, 9, 8], [7, 6, 5], [4, 3, 2], [1]]
    assert left == [10, 7, 4, 1]


def test_pages_keep_to_the_filter_and_the_last_full_one_has_no_note(database: Database, shell: Shell) -> None:
    fail(database, *(NewJob(class_name=name) for name in "ABABAB"), error=missing_error())
    first = shell.run("failed", "list", "--class", "A", "--limit", "2", "-o", "ids")
    assert (first.stdout, first.stderr) == ("5\n3\n", "jq: 1 more; the next page: --page-after 3\n")
    last = shell.run("failed", "list", "--class", "A", "--limit", "1", "--page-after", "3", "-o", "ids")
    assert (last.stdout, last.stderr) == ("1\n", "")


# -- what the operator typed comes back in notes and in the ledger


def test_what_was_typed_is_not_printed_raw(shell: Shell) -> None:
    for command in (
        ["jobs", "show", f"1{NASTY}"],
        ["queues", "pause", "--create", f"q{NASTY}"],
        ["failed", "list", "--since", NASTY],
    ):
        done = shell.run(*command)
        assert (done.stdout, unprintable(done.stderr)) == ("", set())
        assert "\\x1b[31m" in done.stderr


def test_a_password_that_was_typed_is_not_repeated(database: Database, shell: Shell) -> None:
    done = [
        shell.run("jobs", "show", LEAKY),
        shell.run("queues", "pause", "--create", LEAKY),
        shell.run("enqueue", LEAKY),
        shell.run("failed", "list", "--since", LEAKY),
    ]
    assert [each.returncode for each in done] == [2, 0, 0, 2]
    assert [each.args for each in done if "hunter2" in each.stdout + each.stderr] == []
    commands = [row["command"] for row in rows(database, operations)]
    assert shlex.split(commands[0]) == ["jq", "queues", "pause", "--create", "postgres://app:***@db/app"]
    assert [command for command in commands if "hunter2" in command] == []


# -- on a terminal


def fill_wide(database: Database) -> None:
    """Fill the queue with names as long as they are in the cloud."""
    fail(
        database,
        *(
            NewJob(class_name="Billing::Invoices::GenerateMonthlyReportJob", queue_name="reports_for_large_customers")
            for _ in range(12)
        ),
        error=[error_json("Billing::TimeoutError", f"請求書 {number} " + "never came " * 500) for number in range(12)],
    )
    process = add_process(database, "worker-8129320b6dccd7089edd", pid=2_620_112)
    silence(database, process, 1000)
    with database.write() as connection:
        host = "ip-10-0-120-34.eu-central-1.compute.internal"
        connection.execute(update(process_table).values(hostname=host, supervisor_id=71_802, kind="Supervisor(fork)"))


# Of these a part would mean something else: never cut them short.
WHOLE = {
    "failed list": [str(number) for number in range(1, 13)],
    "processes list": ["2620112", "dead", "16m"],
    "queues list": ["no", "0"],
    "prune": ["2620112", "16m", "0"],
}


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("name", WHOLE)
def test_a_table_fits_the_terminal_and_keeps_every_number_whole(
    database: Database, shell: Shell, name: str, width: int
) -> None:
    fill_wide(database)
    shown = terminal(shell, *READING[name], width=width)
    assert cell_len(shown.partition("\n")[0]) <= width
    lines = below_heading(shown).splitlines()
    assert [line for line in lines if cell_len(line) > width] == []
    words = {word for line in lines[1:] for word in line.split()}
    assert [number for number in WHOLE[name] if number not in words] == []
    assert {len(line.split("  ")) > 1 for line in lines if not line.startswith("jq: ")} == {True}


def test_a_person_sees_ages_titles_and_cut_messages(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(3), error=error_json("E", "long " * 100))
    shown = terminal(shell, "failed", "list")
    head, *lines, _ = below_heading(shown).splitlines()
    assert head.split() == ["JOB", "CLASS", "QUEUE", "WHEN", "HOW"]
    assert [line.split()[0] for line in lines] == ["3", "2", "1"]
    assert all(re.search(r" \d+[smhd] ", line) and line.endswith("…") for line in lines)
    assert not TIME.search(shown)


def test_on_a_terminal_a_list_ends_after_a_hundred(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(102), error=missing_error())
    *lines, last = below_heading(terminal(shell, "failed", "list")).splitlines()
    assert len(lines) == 101
    assert last == "2 older  jq failed list --page-after 3 | jq incidents list"
    assert len(shell.run("failed", "list").stdout.splitlines()) == 103


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_colour_where_none_is_wanted(database: Database, shell: Shell, environment: dict[str, str]) -> None:
    fail(database, *plain_jobs(3), error=missing_error())
    shown = raw_terminal(shell, "failed", "list", **environment)
    assert "PlainJob" in shown
    assert set(re.findall(r"\x1b\[([0-9;]*)m", shown)) <= {"0", "1"}
    assert "\x1b" not in re.sub(r"\x1b\[[01]m", "", shown)


def test_a_person_is_told_when_there_is_nothing(shell: Shell) -> None:
    assert below_heading(terminal(shell, "failed", "list")) == ""
    assert below_heading(terminal(shell, "processes", "list")) == "jq: no processes are registered\n"
    assert below_heading(terminal(shell, "queues", "list")) == "jq: no queues\n"
    assert below_heading(terminal(shell, "prune")) == "jq: no dead processes, no orphaned jobs\n"


# -- prune


def test_prune_tells_what_it_did_and_a_dry_run_does_nothing(database: Database, shell: Shell) -> None:
    ids = add_jobs(database, *plain_jobs(2))
    process = add_process(database, "worker-dead")
    claim_all(database, process)
    silence(database, process, 1000)

    dry = shell.run("prune", "--dry-run", "-o", "ids")
    assert (dry.returncode, dry.stdout) == (0, "1\n2\n")
    assert dry.stderr == "jq: would prune 1 process and fail 2 jobs\n"
    assert set(state_of_each(database).values()) == {State.CLAIMED}
    assert len(rows(database, process_table)) == 1
    assert rows(database, operations) == []

    (pruned,) = read_json(shell, "prune")
    assert (pruned["process_id"], pruned["name"], pruned["failed"]) == (process, "worker-dead", 2)
    assert pruned["job_ids"] == ids
    assert set(state_of_each(database).values()) == {State.FAILED}
    (operation,) = rows(database, operations)
    assert (operation["verb"], operation["command"], operation["jobs"]) == ("prune", "jq prune -o json", 2)
    assert read_json(shell, "prune") == []


def test_a_quiet_prune_says_nothing_and_does_the_same(database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(2))
    claim_all(database, add_process(database))
    with database.write() as connection:  # orphans
        connection.execute(process_table.delete())
    done = shell.run("prune", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert set(state_of_each(database).values()) == {State.FAILED}


# -- retry


def test_a_retry_says_of_each_id_what_became_of_it(database: Database, shell: Shell) -> None:
    add_attendants(database)
    fail(database, *plain_jobs(3), error=missing_error())
    add_jobs(database, NewJob(class_name="A"))
    with database.read() as connection:
        by_uuid = connection.scalar(select(jobs.c.active_job_id).where(jobs.c.id == 2))

    done = shell.run("retry", "1", "-o", "ids")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert done.stderr == f"jq: retried 1 job: 1 ready, 0 scheduled\n{last_line(1)}\n"

    part = shell.run("retry", "1", str(by_uuid), "4", "999", "-o", "ids")
    assert (part.returncode, part.stdout) == (6, "2\n")
    assert part.stderr.splitlines() == [
        "jq: retried 1 job: 1 ready, 0 scheduled",
        last_line(2),
        "jq: job 1 is ready, not failed",
        "jq: job 4 is ready, not failed",
        "jq: no job 999",
    ]
    again = shell.run("retry", "1", "2", "-o", "ids")
    assert (again.returncode, again.stdout) == (6, "")
    assert again.stderr.splitlines() == ["jq: job 1 is ready, not failed", "jq: job 2 is ready, not failed"]
    nobody = shell.run("retry", "999", "no-such-uuid", "-o", "ids")
    assert (nobody.returncode, nobody.stdout) == (4, "")
    assert nobody.stderr.splitlines() == ["jq: no job 999", "jq: no job no-such-uuid"]
    assert state_of_each(database) == {1: State.READY, 2: State.READY, 3: State.FAILED, 4: State.READY}


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_a_plan_says_of_missing_ids_what_the_act_would_say(
    database: Database, shell: Shell, verb: str, tmp_path: Path
) -> None:
    fail(database, *plain_jobs(2), error=missing_error())
    add_jobs(database, NewJob(class_name="A"))
    for ways in (["--dry-run"], ["--plan-out", str(tmp_path / "plan.json")]):
        for ids, code in ((["999"], 4), (["1", "999"], 6), (["3"], 6), (["999", "3"], 6), (["1", "2"], 0)):
            done = shell.run(verb, *ids, *ways)
            assert done.returncode == code, (ids, ways, done.stderr)
            assert ("no job 999" in done.stderr) is ("999" in ids)
            assert ("job 3 is ready, not failed" in done.stderr) is ("3" in ids)
    assert state_of_each(database) == {1: State.FAILED, 2: State.FAILED, 3: State.READY}


@pytest.mark.sqlite_only
@pytest.mark.parametrize("command", ["retry", "jobs show", "history", "failed diff", "operations show", "retry d", "x"])
def test_an_absurd_id_fills_no_terminal(shell: Shell, command: str) -> None:
    *words, prefix = [*command.split(), ""] if not command.endswith(" d") else command.split()
    done = shell.run(*words, prefix + "1" * 5000) if command != "x" else shell.run("retry", "1" * 5000 + ";")
    assert done.returncode == (2 if command == "x" else 4)
    assert "1" * 30 + "..." in done.stderr
    assert len(done.stderr) < 250


def test_an_id_given_twice_counts_once(database: Database, shell: Shell) -> None:
    add_attendants(database)
    fail(database, *plain_jobs(1), error=missing_error())
    with database.read() as connection:
        by_uuid = connection.scalar(select(jobs.c.active_job_id))
    done = shell.run("retry", "1", "01", "1", str(by_uuid), "-o", "ids")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert done.stderr == f"jq: retried 1 job: 1 ready, 0 scheduled\n{last_line(1)}\n"


def test_a_retry_keeps_who_and_why(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(1), error=missing_error())
    assert shell.run("retry", "1", "--reason", "host's power, INC-7").returncode == 0
    (operation,) = rows(database, operations)
    assert (operation["verb"], operation["reason"], operation["jobs"]) == ("retry", "host's power, INC-7", 1)
    assert shlex.split(operation["command"]) == ["jq", "retry", "1", "--reason", "host's power, INC-7"]
    assert [row["operation_id"] for row in rows(database, failures)] == [operation["id"]]


def test_failed_jobs_are_shown_in_the_order_they_were_asked_for(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(3), error=missing_error())
    assert shell.run("failed", "show", "3", "1", "2", "-o", "ids").stdout == "3\n1\n2\n"
    assert shell.run("jobs", "show", "3", "1", "2", "-o", "ids").stdout == "3\n1\n2\n"


# -- enqueue


def arguments_of(database: Database) -> list[Any]:
    """Return what stands under ``arguments`` in each job."""
    return [json.loads(row["arguments"])["arguments"] for row in rows(database, jobs)]


def test_an_argument_is_json_where_it_is_json_and_else_text(database: Database, shell: Shell) -> None:
    add_attendants(database)
    given = ["42", "-1.5", "true", "null", '"42"', "[1, 2]", '{"a": 1}', "text", "1 2", "NaN", "Infinity", "{a: 1}", ""]
    done = shell.run("enqueue", "-o", "ids", "--", "ReportJob", *given)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    (arguments,) = arguments_of(database)
    assert arguments == [
        *(42, -1.5, True, None, "42", [1, 2], {"a": 1, "_aj_symbol_keys": []}),
        *("text", "1 2", "NaN", "Infinity", "{a: 1}", ""),
    ]


def test_a_jobs_settings_come_from_the_options(database: Database, shell: Shell) -> None:
    settings = ("-k", "format=pdf", "-k", "pages=[1,2]", "-k", "a=b=c", "--queue", "mailers", "--priority", "-3")
    (job,) = read_json(shell, "enqueue", "ReportJob", "7", *settings)
    assert (job["class_name"], job["queue_name"], job["priority"], job["state"]) == (
        "ReportJob",
        "mailers",
        -3,
        "ready",
    )
    (arguments,) = arguments_of(database)
    assert arguments == [
        7,
        {"format": "pdf", "pages": [1, 2], "a": "b=c", "_aj_ruby2_keywords": ["format", "pages", "a"]},
    ]
    assert job["arguments"] == arguments


def test_a_job_can_be_given_a_time(database: Database, shell: Shell) -> None:
    (delayed,) = read_json(shell, "enqueue", "A", "--at", "15m")
    (dated,) = read_json(shell, "enqueue", "A", "--at", "2999-01-01T12:00+02:00")
    (past,) = read_json(shell, "enqueue", "A", "--at", "2020-01-01")
    assert [job["state"] for job in (delayed, dated, past)] == ["scheduled", "scheduled", "ready"]
    first, _, last = rows(database, jobs)
    assert (first["scheduled_at"] - first["created_at"]).total_seconds() == 900
    assert dated["scheduled_at"] == "2999-01-01T10:00:00.000000Z"
    assert last["scheduled_at"] == last["created_at"]


def test_many_jobs_from_standard_input_are_all_or_none(database: Database, shell: Shell) -> None:
    add_attendants(database)
    lines = "".join(f'[{number}, "ž"]\n' for number in range(1200))
    done = shell.run("enqueue", "A", "--stdin", "-o", "ids", stdin=f"\n{lines}\n[]")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 1202))
    assert arguments_of(database)[-2:] == [[1199, "ž"], []]

    for bad in ("[1] [2]", '[{"_aj_x": 1}]', "[NaN]", "[" * 100_000):
        done = shell.run("enqueue", "A", "--stdin", "-o", "ids", stdin=f"[1]\n{bad}\n[2]\n")
        assert (done.returncode, done.stdout) == (2, ""), bad[:20]
        assert done.stderr.count("\n") == 1
    assert len(rows(database, jobs)) == 1201


def test_a_bad_line_is_named(shell: Shell) -> None:
    done = shell.run("enqueue", "A", "--stdin", stdin="[1]\n\n{}\n[2]\n")
    assert done.stderr == "jq: line 3 of standard input is not a JSON list of arguments; nothing was enqueued\n"


def test_a_registered_jobs_own_settings_are_taken(database: Database, shell: Shell) -> None:
    (shell.folder / "shop_jobs.py").write_text(
        "from solidjq import job\n"
        "@job(name='Shop::Bill', queue='bills', priority=7, limit=1, limit_by=lambda order, **_: order % 2)\n"
        "def bill(order, format='pdf'):\n    raise AssertionError('enqueueing must not run it')\n"
    )
    from_module = ("enqueue", "Shop::Bill", "--import", "shop_jobs")
    (first,) = read_json(shell, *from_module, "4711")
    (second,) = read_json(shell, *from_module, "4713", "-k", "format=csv", "--queue", "late", "--priority", "0")
    assert (first["queue_name"], first["priority"], first["concurrency_key"]) == ("bills", 7, "Shop::Bill/1")
    assert (second["queue_name"], second["priority"], second["concurrency_key"]) == ("late", 0, "Shop::Bill/1")
    assert (first["state"], second["state"]) == ("ready", "blocked")
    unknown = shell.run("enqueue", "bill", "4711", "--import", "shop_jobs")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "Shop::Bill" in unknown.stderr


def test_a_limit_of_ruby_is_lost_only_where_that_is_said(database: Database, shell: Shell) -> None:
    by_rails = NewJob(class_name="ImportJob", concurrency_key="ImportJob/7", limit=Limit(1))
    add_jobs(database, by_rails, *plain_jobs(1), NewJob(class_name="ImportJob"))
    for refused in (("enqueue", "ImportJob", "42"), ("enqueue", "ImportJob", "42", "--at", "15m")):
        assert_refused(shell.run(*refused), 5, "ImportJob/7", "--concurrency-key KEY", "--no-limit")
    assert_refused(shell.run("enqueue", "ImportJob", "--stdin", stdin="[1]\n[2]\n"), 5, "ImportJob/7")
    assert len(rows(database, jobs)) == 3

    began = database.now()
    keyed = ("--concurrency-key", "ImportJob/42")
    (now,) = read_json(shell, "enqueue", "ImportJob", "42", *keyed)
    (later,) = read_json(shell, "enqueue", "ImportJob", "42", *keyed, "--at", "15m")
    (beside,) = read_json(shell, "enqueue", "ImportJob", "42", "--no-limit")
    assert [(job["state"], job["concurrency_key"]) for job in (now, later, beside)] == [
        ("scheduled", "ImportJob/42"),
        ("scheduled", "ImportJob/42"),
        ("ready", None),
    ]
    due = [row["scheduled_at"] for row in rows(database, scheduled)]
    assert began <= due[0] <= database.now()
    assert (due[1] - due[0]).total_seconds() > 800
    assert shell.run("enqueue", "PlainJob").returncode == 0

    unlike = shell.run("enqueue", "ImportJob", "42", "--concurrency-key", "42")
    assert (unlike.returncode, "their keys begin otherwise: ImportJob/42, ImportJob/7" in unlike.stderr) == (0, True)
    assert_refused(shell.run("enqueue", "ImportJob", "--concurrency-key", ""), 2, "is empty")
    assert_refused(shell.run("enqueue", "ImportJob", *keyed, "--no-limit"), 2, "leave one out")


def test_a_limit_of_python_comes_from_its_module(database: Database, shell: Shell) -> None:
    (shell.folder / "shop_jobs.py").write_text("from solidjq import job\n@job(limit=1)\ndef bill():\n    pass\n")
    known = ("enqueue", "bill", "--import", "shop_jobs")
    assert [read_json(shell, *known)[0]["state"] for _ in range(2)] == ["ready", "blocked"]
    assert_refused(shell.run("enqueue", "bill"), 5, "--import MODULE", "bill/")
    (beside,) = read_json(shell, *known, "--no-limit")
    assert (beside["state"], beside["concurrency_key"]) == ("ready", None)
    assert_refused(shell.run(*known, "--concurrency-key", "bill/"), 2, "--import")
    assert len(rows(database, jobs)) == 3


# -- queues, init


def test_queues_are_paused_and_resumed_and_each_is_named(database: Database, shell: Shell) -> None:
    add_jobs(database, NewJob(class_name="A", queue_name="mailers"))
    done = shell.run("queues", "pause", "--create", "mailers", "other", "mailers")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "jq: queue mailers paused\njq: queue other paused\n"
    assert shell.run("queues", "pause", "mailers").stderr == "jq: queue mailers was paused already\n"
    assert {row["queue_name"]: row["paused"] for row in read_json(shell, "queues", "list")} == {
        "mailers": True,
        "other": True,
    }
    assert shell.run("queues", "resume", "mailers").stderr == "jq: queue mailers resumed\n"
    assert shell.run("queues", "resume", "mailers").stderr == "jq: queue mailers was not paused\n"
    assert [row["queue_name"] for row in rows(database, pauses)] == ["other"]
    assert [row["verb"] for row in rows(database, operations)] == ["pause", "resume"]


def test_init_says_what_it_made_and_the_second_time_that_nothing_was_missing(tmp_path: Path) -> None:
    shell = Shell("sqlite3:new/queue.sqlite3", tmp_path)
    first, second = shell.run("init"), shell.run("init")
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout == second.stdout == ""
    made = [line for line in first.stderr.splitlines() if line.startswith("jq: created table ")]
    assert len(made) == 17
    assert first.stderr.splitlines()[17:] == ["jq: sqlite:new/queue.sqlite3 is ready"]
    assert second.stderr == "jq: sqlite:new/queue.sqlite3 was ready; nothing to do\n"


# -- in a pipe


def test_a_list_of_ids_can_be_piped_into_a_retry(database: Database, shell: Shell) -> None:
    add_attendants(database)
    fail(database, *plain_jobs(4, queue_name="mailers"), *plain_jobs(2), error=missing_error())
    done = shell.line("jq failed list --missing --queue mailers -o ids | jq retry - --reason reboot -o ids")
    assert (done.returncode, done.stdout) == (0, "1\n2\n3\n4\n")
    assert done.stderr == f"jq: retried 4 jobs: 4 ready, 0 scheduled\n{last_line(1)}\n"
    assert list(state_of_each(database).values()) == [*[State.READY] * 4, *[State.FAILED] * 2]


def test_a_table_is_not_mistaken_for_ids(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(1), error=missing_error())
    done = shell.line("jq failed list | jq retry -")
    assert (done.returncode, state_of_each(database)) == (2, {1: State.FAILED})


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_a_reader_that_has_enough_causes_no_noise(database: Database, shell: Shell, output: str) -> None:
    fail(database, *plain_jobs(300), error=error_json("E", "long " * 500))
    done = shell.line(f"jq failed list -o {output} | head -n 1")
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert done.returncode == Exit.UNREAD


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "command", ["--help", "failed --help", "--version", "failed list", "completions bash", "doctor"]
)
def test_a_reader_that_left_before_causes_no_noise(shell: Shell, command: str) -> None:
    unread, written = os.pipe()
    os.close(unread)
    done = subprocess.run(
        [sys.executable, "-m", "solidjq_cli", *command.split()],
        stdout=written,
        stderr=subprocess.PIPE,
        env={**shell.env(), "PYTHONUNBUFFERED": ""},
        cwd=shell.folder,
        timeout=60,
        check=False,
    )
    os.close(written)
    assert (done.stderr, done.returncode) == (b"", Exit.UNREAD)


def test_ctrl_c_ends_a_command_at_once_and_changes_nothing(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(3), error=missing_error())
    process = subprocess.Popen(
        [sys.executable, "-m", "solidjq_cli", "retry", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=shell.env(),
        cwd=shell.folder,
    )
    assert process.stdin
    process.stdin.write(b"1 2 3 " * 50_000)  # more than a pipe holds: once this returns, the command is reading
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    assert process.communicate() == (b"", b"")
    assert process.returncode == 130
    assert set(state_of_each(database).values()) == {State.FAILED}


def test_a_full_disk_is_one_line_and_a_documented_exit_code(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(1), error=missing_error())
    done = shell.line("jq failed list -o json > /dev/full")
    assert (done.returncode, done.stderr) == (1, "jq: the output cannot be written: No space left on device\n")


def test_what_was_done_before_the_output_is_said_if_that_cannot_be_written(database: Database, shell: Shell) -> None:
    full = "jq: the output cannot be written: No space left on device\n"
    done = shell.line("jq enqueue PlainJob 1 > /dev/full")
    assert (done.returncode, done.stderr) == (1, f"jq: it enqueued job 1\n{full}")
    done = shell.line("echo '[1]\n[2]' | jq enqueue PlainJob --stdin -o ids > /dev/full")
    assert (done.returncode, done.stderr) == (1, f"jq: it enqueued 2 jobs: 2 to 3\n{full}")
    dead = add_process(database)
    claim_all(database, dead)
    silence(database, dead, 1000)
    done = shell.line("jq prune --force -o json > /dev/full")
    assert (done.returncode, done.stderr) == (1, f"jq: it pruned 1 process and failed 3 jobs\n{full}")


def test_jobs_that_were_enqueued_are_no_failure_without_a_reader(database: Database, shell: Shell) -> None:
    done = shell.line("exec 3> >(true); wait $!; jq enqueue PlainJob 1 >&3")
    assert (done.returncode, len(rows(database, jobs))) == (0, 1)


# -- which database


def database_with_queue(name: str) -> Callable[[Path], str]:
    """Make a database in which only a queue of its own name tells it from others."""

    def make(folder: Path) -> str:
        text = f"sqlite:{folder}/{name}.sqlite3"
        database = Database(parse_url(text))
        initialize(database)
        add_jobs(database, NewJob(class_name="A", queue_name=name))
        database.close()
        return text

    return make


def test_the_command_line_beats_the_environment_and_the_later_option_the_earlier(tmp_path: Path) -> None:
    env, before, after = (database_with_queue(name)(tmp_path) for name in ("env", "before", "after"))
    shell = Shell(env, tmp_path)
    listed = ("queues", "list", "-o", "json")
    for command, expected in (
        (listed, "env"),
        (("--database", before, *listed), "before"),
        ((*listed, "--database", after), "after"),
        (("-d", before, *listed, "-d", after), "after"),
    ):
        (queue,) = json.loads(shell.run(*command).stdout)
        assert queue["queue_name"] == expected


@pytest.mark.parametrize("variable", ["HOME", "XDG_STATE_HOME"])
def test_the_embedded_queue_is_made_when_first_used_and_is_the_users_own(tmp_path: Path, variable: str) -> None:
    shell = Bare("", tmp_path, {"HOME": str(tmp_path / "home"), "XDG_STATE_HOME": ""})
    shell.environment[variable] = str(tmp_path / "there")
    first = shell.run("enqueue", "A", "-o", "ids")
    assert (first.returncode, first.stdout) == (0, "1\n"), first.stderr
    (file,) = (tmp_path / "there").rglob("*.sqlite3")
    assert (file.name, file.parent.name) == ("queue.sqlite3", "solidjq")
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [job["class_name"] for job in read_json(shell, "jobs", "show", "1")] == ["A"]


def test_help_and_version_need_no_database(tmp_path: Path) -> None:
    shell = Shell("nonsense://", tmp_path)
    done = [shell.run(*arguments) for arguments in (["--help"], ["--version"], ["failed", "list", "-h"])]
    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * 3
    assert re.fullmatch(r"jq \(solidjq\) \d+\.\d+\.\d+\S*\n", done[1].stdout)
    assert "130 interrupted" in " ".join(done[0].stdout.split())
