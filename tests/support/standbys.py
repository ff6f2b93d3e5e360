"""Servers of the tests' own that are standbys: a PostgreSQL that follows the tests' one, and a read-only MariaDB."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from support.servers import (
    connected,
    execute,
    mariadb,
    mariadb_programs,
    missing_program,
    run_program,
    server_folder,
)
from support.waiting import until

NO_SECOND_SERVER = "no second MariaDB can be started: mariadbd and mariadb-install-db are not on the PATH"
POSTGRESQL_USER = "pgserver"  # the wheel's own, where the tests run as root: a server never does


def ask(url: URL, query: str) -> Any:
    """Return the one value of a query."""
    with connected(url) as connection:
        return connection.scalar(text(query))


@pytest.fixture(scope="module")
def postgresql_standby(postgresql_server: URL) -> Iterator[URL]:
    """A standby of the tests' PostgreSQL, by streaming replication.

    It does again whatever is done there, so it goes when the tests of its module have ended.
    """
    programs = Path(ask(postgresql_server, "SELECT setting FROM pg_config WHERE name = 'BINDIR'"))
    user = POSTGRESQL_USER if os.geteuid() == 0 else None
    with server_folder("standby") as folder:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        data = f"{folder}/data"

        def run(program: str, *arguments: str) -> None:
            run_program(programs / program, *arguments, user=user, folder=Path(folder))

        primary = str(postgresql_server.query["host"])
        run("pg_basebackup", "-h", primary, "-U", "postgres", "-D", data, "-R", "-X", "stream", "-c", "fast")
        run("pg_ctl", "-D", data, "-l", f"{folder}/log", "-o", f'-h "" -k {folder}', "-w", "start")
        yield postgresql_server.update_query_dict({"host": folder})
        run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


@pytest.fixture
def standby_url(kind: str, queue_url: URL, request: pytest.FixtureRequest) -> Iterator[URL]:
    """The queue of this test as its standby has it; ``follow`` waits until it has all of it."""
    assert kind == "postgresql"
    server: URL = request.getfixturevalue("postgresql_standby")
    standby = server.set(database=queue_url.database)
    follow(queue_url, server)
    yield standby
    execute(server, "SELECT pg_wal_replay_resume()")


def follow(primary: URL, standby: URL) -> None:
    """Wait until the standby has replayed all that is committed on the primary."""
    position = ask(primary, "SELECT pg_current_wal_lsn()")
    until(lambda: ask(standby, f"SELECT pg_last_wal_replay_lsn() >= '{position}'"), "the standby follows")


@pytest.fixture(scope="module")
def mariadb_standby() -> Iterator[URL]:
    """A MariaDB of the tests' own that takes no writes but of its administrators."""
    if missing_program(mariadb_programs()) is not None:
        pytest.skip(NO_SECOND_SERVER)
    with server_folder("standby") as folder, mariadb("--read-only=1", "--server-id=2", folder=folder) as url:
        yield url
