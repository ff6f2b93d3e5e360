"""The program ends without being taken apart; nothing may get lost by that."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from solidjq.database.transactions import Database
from support.program import Shell

# What wants to run when Python ends, in the middle of the program's own run.
PROGRAM = """
import atexit, os, sys, threading
from solidjq_cli import __main__
class Kept:
    def __del__(self): os.write(2, b"taken apart ")
def run():
    sys.modules["kept"] = Kept()
    atexit.register(lambda: os.write(2, b"handler "))
    threading.Timer(0.05, lambda: os.write(2, b"thread ")).start()
    sys.stdout.write("not flushed")
    return 5
__main__.main = run
sys.exit(__main__.program())
"""


@pytest.fixture
def kind() -> str:
    return "sqlite"


def test_threads_handlers_and_output_come_before_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (5, "not flushed", "thread handler ")


def test_with_jobs_loaded_everything_is_taken_apart(shell: Shell) -> None:
    (shell.folder / "jobs_with_a_file.py").write_text("kept = open('kept.txt', 'w')\nkept.write('not flushed')\n")
    done = Shell(shell.url, shell.folder, fresh=True).run("policy", "show", "--import", "jobs_with_a_file")
    assert done.returncode == 0, done.stderr
    assert (shell.folder / "kept.txt").read_text() == "not flushed"


def test_sqlite_puts_its_log_away(shell: Shell, database: Database) -> None:
    database.close()
    file = Path(database.url.database or "")
    done = Shell(shell.url, shell.folder, fresh=True).run("queues", "pause", "--create", "mails")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in file.parent.glob(f"{file.name}*")] == [file.name]


def test_what_cannot_be_written_is_told() -> None:
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=full, stderr=subprocess.PIPE, text=True, env=buffered, check=False
        )
    assert done.returncode == 120
    assert "No space left" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(shell: Shell, closed: str) -> None:
    program = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "solidjq_cli", "--database", shell.url]
    assert subprocess.run([*program, "failed", "list", "--limit", "1"], check=False).returncode == 0
    assert subprocess.run([*program, "jobs", "show", "1"], check=False).returncode == 4
    assert subprocess.run([*program, "retry", "--safe"], check=False).returncode == 2  # it needs --yes


def test_a_signal_that_arrives_while_the_program_is_still_loaded_is_an_end_like_any_other(tmp_path: Path) -> None:
    """As where a supervisor is stopped just after its start: no stack trace."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    done = subprocess.run(
        [sys.executable, "-m", "solidjq_cli", "--version"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
