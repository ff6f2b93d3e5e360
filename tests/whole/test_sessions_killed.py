"""Every command with its session killed before one of its statements: exit code 3 or 6, one line, never a surprise."""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pymysql
import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database.urls import url_text
from solidjq.errors import DatabaseUnreachableError
from solidjq_cli import session
from solidjq_cli.exits import Exit
from support.commands import run
from support.every_command import COMMANDS, PLAN, PLUGINS
from support.queue import clear
from support.scenes import something_for_every_command
from support.waiting import until

# Those that make no statement, run until they are stopped, or wait for jobs to run.
ELSEWHERE = {"completions bash", "profiles list", "work --import sample_jobs", "bisect {death} --yes", f"apply {PLAN}"}
# The statements before which the session is killed. A driver's error is told in one place, whatever the command.
STEPS = {"postgresql": (1, 3, 8, 21, 55), "mariadb": (2, 5, 13, 34)}
ALLOWED = {Exit.DONE, Exit.DATABASE, Exit.PARTLY}  # done: what only adds to the answer failed, or was tried again
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Collect the connections and cursors of killed sessions, which nobody closes, before a later test fails by it."""
    yield
    gc.collect()


def writes(command: str) -> bool:
    return COMMANDS[command] == Exit.REFUSED  # where it may change nothing


@contextmanager
def killing(step: int, kill: Callable[[Any], None]) -> Iterator[list[bool]]:
    """Kill the session that is about to send its statement number ``step``; the list is then no longer empty."""
    sent = 0
    killed: list[bool] = []

    def count(connection: Any, *_: object) -> None:
        nonlocal sent
        sent += 1
        if sent == step:
            killed.append(True)
            kill(connection.connection.driver_connection)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield killed
    finally:
        event.remove(Engine, "before_cursor_execute", count)


@pytest.fixture
def kill(kind: str, queue_url: URL) -> Iterator[Callable[[Any], None]]:
    """Give a function that kills the session of a driver's connection, and waits until it is dead."""
    if kind == "postgresql":
        with psycopg.connect(
            host=str(queue_url.query["host"]), user=queue_url.username, dbname="postgres", autocommit=True
        ) as administrator:
            yield lambda victim: (
                administrator.execute("SELECT pg_terminate_backend(%s, 60000)", [victim.info.backend_pid]),
                None,
            )[1]
        return
    administrator = pymysql.connect(
        host=queue_url.host,
        port=queue_url.port or 3306,
        user=queue_url.username,
        password=queue_url.password or "",
        autocommit=True,
    )

    def dead(thread: int) -> bool:
        with administrator.cursor() as cursor:
            return cursor.execute("SELECT 1 FROM information_schema.processlist WHERE id = %s", [thread]) == 0

    def kill(victim: Any) -> None:
        thread = victim.thread_id()
        with administrator.cursor() as cursor:
            cursor.execute(f"KILL {thread}")
        until(lambda: dead(thread), "the session is dead")

    yield kill
    administrator.close()


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_command_whose_session_is_killed_says_so(
    database: Database,
    queue_url: URL,
    kind: str,
    kill: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(queue_url))
    monkeypatch.setenv("JQ_PRUNE_FORCE", "1")
    surprises = []
    unreachable = 0
    names = something_for_every_command(database)
    commands = sorted(COMMANDS.keys() - ELSEWHERE - PLUGINS)
    for command in sorted(commands, key=writes):  # those that only read find the same queue
        if writes(command):
            clear(database)
            names = something_for_every_command(database)
        for step in STEPS[kind]:
            capsys.readouterr()
            with killing(step, kill) as killed:
                code = run(command.format(**names).split())
                session.close()
            if not killed:
                break
            err = capsys.readouterr().err
            unreachable += code == Exit.DATABASE
            lines = [line for line in err.splitlines() if "cannot reach" in line]
            if code not in ALLOWED or "unexpected error" in err or len(lines) != (code == Exit.DATABASE):
                surprises.append((command, step, code, err))
    assert surprises == []
    assert unreachable > len(commands)


@pytest.mark.only_on("postgresql", "mariadb")
def test_doctor_makes_a_check_again_whose_session_was_killed(
    database: Database,
    queue_url: URL,
    kill: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(queue_url))
    something_for_every_command(database)
    outputs = []
    for step in (10_000, 10):  # the first is never reached
        with killing(step, kill) as killed:
            run(["doctor", "paused-queues", "finished-jobs", "no-state", "two-states", "-o", "ndjson"])
            session.close()
        outputs.append(capsys.readouterr().out)
    assert killed
    assert outputs[0] == outputs[1] != ""


@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.parametrize("use", ["outside", "read", "write"])
def test_a_session_that_died_in_the_pool(database: Database, kill: Callable[[Any], None], use: str) -> None:
    with database.read() as connection:
        victim = connection.connection.driver_connection
    kill(victim)

    def ask(opened: Callable[[], AbstractContextManager[Connection]]) -> None:
        with opened() as connection:
            connection.scalar(text("SELECT 1"))

    way = {"outside": database.outside_transactions, "read": database.read, "write": database.write}[use]
    with pytest.raises(DatabaseUnreachableError):
        ask(way)
    ask(way)
