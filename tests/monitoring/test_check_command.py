"""``jq check`` as a program: what a monitor reads of it."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from solidjq import Database
from solidjq.database.tables import ready
from solidjq.rails.error_text import exit_error
from support.processes import add_attendants
from support.program import Bare, Shell
from support.queue import add_jobs, fail, plain_jobs
from support.scenes import NASTY, age_of, change

# status - text | 'label'=value;warn;crit;min ...
VALUE = r"'(?:[^'=]|'')+'=-?[\d.]+s?;[\d.@~:]*;[\d.@~:]*;0"
LINE = re.compile(rf"JQ [A-Z-]+ (?P<level>OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+(?: \| {VALUE}(?: {VALUE})*)?")


def first_line(out: str) -> str:
    line = out.splitlines()[0]
    match = LINE.fullmatch(line)
    assert match, line
    return match["level"]


@pytest.mark.sqlite_only
def test_lines_and_exit_codes(database: Database, shell: Shell) -> None:
    add_attendants(database)
    well = shell.run("check", "all")
    assert (well.returncode, well.stderr, first_line(well.stdout)) == (0, "", "OK")
    assert well.stdout.splitlines()[1] == "failures OK: no job failed within 1h"
    fail(database, *plain_jobs(1), error=exit_error(7, -9))
    ill = shell.run("check", "all")
    assert (ill.returncode, first_line(ill.stdout)) == (1, "WARNING")
    assert "failures: 1 job failed" in ill.stdout
    assert shell.run("check", "failures", "--crit", "0").returncode == 2
    assert shell.run("check", "all", "--expect", "5").returncode == 2


@pytest.mark.sqlite_only
def test_a_name_from_a_row_is_only_a_label(database: Database, shell: Shell) -> None:
    add_attendants(database)
    add_jobs(database, *plain_jobs(1, queue_name=f"a'b=c|d\n{NASTY}"))
    change(database, age_of(ready, 1900))
    done = shell.run("check", "latency")
    assert (done.returncode, first_line(done.stdout), done.stdout.count("\n")) == (2, "CRITICAL", 1)
    assert done.stdout.isascii()


@pytest.mark.sqlite_only
def test_json(database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(1))
    done = shell.run("check", "all", "-o", "json")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (2, "")
    assert {record["status"] for record in found} == {"ok", "warning", "critical"}
    (waiting,) = (record for record in found if record["check"] == "latency")
    assert (waiting["subject"], waiting["unit"], waiting["warning"]) == ("default", "s", "300")


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "line",
    [
        ["latency", "--bogus"],
        ["latency", "--warn", "abc"],
        ["failures", "--window", "0s"],
        ["nonsense"],
        [],
        ["alive-file"],
        ["all", "--skip", "nonsense"],
        ["latency", "--config", "missing.toml"],
        ["latency", "--patience", "-1"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_unknown(shell: Shell, line: list[str]) -> None:
    """For a monitor 2 is critical; only 3 says that the check itself is wrong."""
    assert shell.run("check", *line).returncode == 3
    assert shell.run("queues", "--bogus").returncode == 2


@pytest.mark.sqlite_only
def test_databases_that_are_none(shell: Shell, tmp_path: Path) -> None:
    for url in ("nonsense://", "sqlite3:missing.sqlite3"):
        done = shell.run("check", "failures", url=url)
        assert (done.returncode, first_line(done.stdout)) == (3, "UNKNOWN"), url
    nowhere = Bare(shell.url, tmp_path).run("check", "failures")
    assert (nowhere.returncode, first_line(nowhere.stdout)) == (3, "UNKNOWN")
    away = shell.run("check", "all", url="postgres://x@127.0.0.1:1/x")
    assert (away.returncode, first_line(away.stdout)) == (2, "CRITICAL")
    assert away.stdout.count("failures, deaths, latency") == 1  # one reason, said once


@pytest.mark.sqlite_only
def test_promises_of_the_settings(database: Database, shell: Shell, tmp_path: Path) -> None:
    add_attendants(database)
    add_jobs(database, *plain_jobs(1, queue_name="mailers"))
    change(database, age_of(ready, 90))
    own = tmp_path / "own.toml"
    own.write_text('[workers]\nexpect = 4\n[queues.mailers]\nlatency = "1m"\n')
    assert shell.run("check", "latency").returncode == 0
    assert shell.run("check", "latency", "--config", "own.toml").returncode == 2
    done = shell.run("check", "processes", "--config", "own.toml")
    assert (done.returncode, "1 of 4 expected workers live" in done.stdout) == (2, True)
    assert shell.run("check", "processes", "--config", "own.toml", "--expect", "1").returncode == 0


@pytest.mark.sqlite_only
def test_a_misspelt_promise_is_unknown(shell: Shell, tmp_path: Path) -> None:
    """If the table were ignored, the check would report OK while the jobs wait."""
    for table, meant in (("queue.mailers", "queues"), ("worker", "workers")):
        (tmp_path / "own.toml").write_text(f'[{table}]\nlatency = "1m"\n')
        for check in ("latency", "processes", "all"):
            done = shell.run("check", check, "--config", "own.toml")
            assert (done.returncode, f"did you mean {meant}?" in done.stdout) == (3, True), (table, check, done.stdout)


def test_an_alive_file_needs_no_database(tmp_path: Path) -> None:
    """A probe that asks the database restarts every worker when it hiccups."""
    shell = Shell("nonsense://", tmp_path, fresh=True)
    path = tmp_path / "alive"
    missing = shell.run("check", "alive-file", "alive")
    assert (missing.returncode, first_line(missing.stdout)) == (2, "CRITICAL")
    path.touch()
    assert shell.run("check", "alive-file", "alive").returncode == 0
    for seconds, code in ((60, 0), (3600, 2), (-60, 0), (-3600, 2)):  # ahead, too: it says nothing then
        os.utime(path, (0, time.time() - seconds))
        assert shell.run("check", "alive-file", "alive", "--max-age", "10m").returncode == code, seconds
