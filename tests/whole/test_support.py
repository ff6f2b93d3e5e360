"""The tests' own tools, where they could let a test pass or fail that should not."""

import socket

import pytest
from compiled_statements import kind_of
from sqlalchemy import Dialect, select
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from solidjq import Database
from solidjq.database import hot
from solidjq.database.tables import jobs
from solidjq.queue import endings
from support.program import Shell, zygote
from support.zygote import Running


def test_a_program_that_ended_before_its_pid_was_read_has_ended() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"4242\n3\n")
        running = Running(["--version"], ours)
        assert (running.pid, running.wait(0), running.stays) == (4242, 3, True)
        running.leave()


@pytest.mark.parametrize(
    ("command", "status"), [("failed list", 0), ("undo 1", 4), ("apply missing", 2), ("nonsense", 2)]
)
def test_a_command_runs_in_the_process_of_the_last_one_however_that_ended(
    shell: Shell, command: str, status: int
) -> None:
    assert shell.run(*command.split()).returncode == status
    last = zygote()._stays
    assert last is not None, "the command has left something behind, and each one after it costs a fork"
    shell.run("status")
    assert zygote()._stays is last


def test_two_engines_of_one_database_compile_a_statement_once(database: Database) -> None:
    other = Database(database.url)
    dialects = []
    for each in (database, other):
        with each.read() as connection:
            context = connection.execute(select(jobs.c.id).where(jobs.c.id == 17)).context
            dialects.append(connection.dialect)
    assert context.cache_hit is Dialect.CACHE_HIT
    first, second = (hot._prepare(endings.finish_jobs, dialect) for dialect in dialects)
    assert first is second
    other.close()


def test_engines_of_servers_that_differ_share_nothing() -> None:
    plain, quoting, named = PGDialect_psycopg(), PGDialect_psycopg(), PGDialect_psycopg(paramstyle="named")
    quoting._backslash_escapes = not plain._backslash_escapes
    mariadb = MySQLDialect_pymysql()
    mariadb.is_mariadb = True
    dialects = (plain, quoting, named, MySQLDialect_pymysql(), mariadb)
    assert len({kind_of(dialect) for dialect in dialects}) == len(dialects)
    assert kind_of(plain) == kind_of(PGDialect_psycopg())
