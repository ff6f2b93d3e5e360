"""What is only said beside an answer: it takes a second at most, and decides nothing. And what a command waits for."""

import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import transactions
from solidjq.database.urls import url_text
from solidjq.errors import TookTooLongError
from solidjq.queue import failed
from solidjq_cli import session
from support.commands import run
from support.program import Shell
from support.queue import add_jobs, plain_jobs
from support.queue import fail as fail_jobs
from support.servers import connected
from support.waiting import PATIENCE

ENDLESS = {
    "sqlite": "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(1000)",
    "mysql": "SELECT SLEEP(1000)",
}
LOCKED = {
    "sqlite": ("PRAGMA journal_mode = DELETE", "BEGIN EXCLUSIVE"),
    "postgresql": ("BEGIN", "LOCK TABLE solid_queue_failed_executions IN ACCESS EXCLUSIVE MODE"),
    "mysql": ("LOCK TABLES solid_queue_failed_executions WRITE",),
}
UNLOCKED = {"sqlite": "ROLLBACK", "postgresql": "ROLLBACK", "mysql": "UNLOCK TABLES"}


def test_a_glance_ends_by_itself(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(connection: Connection) -> Any:
        return connection.execute(text(ENDLESS[connection.dialect.name])).all()

    monkeypatch.setattr(transactions, "GLANCE", 3.0)  # a busy machine answers within it
    assert database.glance(endless) in (None, [(1,)])  # MySQL's SLEEP returns 1 if it is stopped
    assert database.glance(lambda connection: connection.scalar(text("SELECT 7"))) == 7
    glance = database.glances()
    assert glance(lambda connection: connection.scalar(text("SELECT 7"))) == 7
    assert glance(endless) in (None, [(1,)])
    assert glance(lambda connection: connection.scalar(text("SELECT 7"))) is None  # the time is over


@pytest.mark.sqlite_only
def test_a_count_that_was_stopped_is_called_inexact_in_a_pipe(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_jobs(database, *plain_jobs(2), error="boom")
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(database.url))
    monkeypatch.setattr("solidjq.status.report.count_problems", lambda *_, **__: (1, True))
    assert run(["status"]) == 0
    heading, row = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    shown = dict(zip(heading, row, strict=True))
    assert {name: shown[name] for name in ("failed", "failed_exact", "problems", "problems_exact")} == {
        "failed": "2",
        "failed_exact": "true",
        "problems": "1",
        "problems_exact": "false",
    }


@pytest.mark.sqlite_only
def test_a_count_that_fails_decides_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise TookTooLongError("it took too long")

    fail_jobs(database, *plain_jobs(2), error="boom")
    add_jobs(database, *plain_jobs(1))
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(database.url))
    monkeypatch.setattr(failed, "count_failures", fails)
    monkeypatch.setattr(failed, "count_up_to", fails)
    monkeypatch.setattr("solidjq.selection.explanations.count_up_to", fails)
    monkeypatch.setattr("solidjq.selection.explanations.unknown_names", fails)
    for command, words in (
        ("failed list --limit 1 -o ids", "there may be more"),
        ("failed list --class Nothing", "no failed job"),
        ("failed list --class PlainJob --class Nothing", ""),
    ):
        assert run(command.split()) == 0, command
        assert words in capsys.readouterr().err
        session.close()


def test_a_list_says_that_it_waits_for_a_lock(queue_url: URL, shell: Shell) -> None:
    backend = queue_url.get_backend_name()
    with connected(queue_url, isolation_level="AUTOCOMMIT") as other:
        for statement in LOCKED[backend]:
            other.exec_driver_sql(statement)
        waiting = shell.start("failed", "list")
        try:
            assert waiting.stderr is not None
            assert waiting.stderr.readline().startswith("jq: waiting for a lock: ")
            other.exec_driver_sql(UNLOCKED[backend])
            out, _ = waiting.communicate(timeout=PATIENCE)
            assert (out.count("\n"), waiting.returncode) == (1, 0)
        finally:
            waiting.kill()
            waiting.communicate()


def test_the_drivers_log_nothing_beside_our_own_words() -> None:
    """Python prints warnings of loggers that have no handler; psycopg warns of a pipeline whose server went away."""
    program = (
        "import logging, solidjq.database.engines\n"
        "for name in ('psycopg', 'sqlalchemy'): logging.getLogger(name).warning('away')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stderr == ""
