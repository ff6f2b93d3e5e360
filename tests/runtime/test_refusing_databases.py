"""Databases that take no writes for a while: a full disk, read-only. What ended meanwhile ran once, and is recorded."""

import os
import pwd
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database.setup import initialize
from solidjq.database.tables import claimed
from solidjq.database.urls import url_text
from solidjq.queue.states import State
from solidjq_cli.exits import Exit
from support.disks import fill, small_disk
from support.paths import PROGRAMS
from support.program import Shell
from support.queue import add_jobs, rows, state_of_each
from support.runtime import Runtime, is_running, kill
from support.servers import execute, server_folder
from support.standbys import POSTGRESQL_USER
from support.waiting import until

NAMES = [f"job-{number}" for number in range(6)]
WIDE = "".join(f"{number:x}" for number in range(1000, 1500))  # so that no new version of a row fits into its page


@contextmanager
def running(database: Database, url: URL, tmp_path: Path) -> Iterator[Runtime]:
    folder = tmp_path / "work"
    folder.mkdir()
    runtime = Runtime(database, Shell(url_text(url), folder, {"PYTHONPATH": str(PROGRAMS)}))
    try:
        yield runtime
    finally:
        runtime.kill_all()


def check_that_nothing_is_forgotten(
    runtime: Runtime, refuse: Callable[[], None], allow: Callable[[], None], words: str, *, stop: bool = False
) -> None:
    """Let jobs end while the database refuses writes; if ``stop``, stop their worker too before it takes them again."""
    database = runtime.database
    ids = add_jobs(database, *(NewJob(class_name="hold", args=[name, WIDE]) for name in NAMES))
    runtime.start("--threads", str(len(NAMES)), "--shutdown-timeout", "1", heartbeat=0.5)
    for name in NAMES:
        runtime.running(name)
    refuse()
    for name in NAMES:
        runtime.let_end(name)
    runtime.wait_for_log(words)
    if stop:
        # A job that had not seen yet that it may end would be released, and run again.
        until(lambda: sum(" ended in " in line for line in runtime.journal()) == len(NAMES), "all jobs have ended")
        worker = runtime.worker().pid
        kill(worker, signal.SIGTERM)
        runtime.wait_for_log("are done, but the database has not recorded it; they stay claimed")
        until(lambda: not is_running(worker), "the worker has stopped")
        assert State.READY not in state_of_each(database).values()
    allow()
    for job_id in ids:
        runtime.wait_for(job_id, State.FINISHED)
    assert sorted(line.split(" runs in ")[0] for line in runtime.journal() if " runs in " in line) == NAMES
    until(lambda: rows(database, claimed) == [], "no claim is left")


@pytest.mark.sqlite_only
def test_jobs_that_end_while_the_disk_of_sqlite_is_full(kind: str, tmp_path: Path) -> None:
    assert kind == "sqlite"
    with small_disk(tmp_path / "disk", "1m") as disk:
        database = Database(URL.create("sqlite", database=str(disk / "queue.sqlite3")))
        initialize(database)
        with running(database, database.url, tmp_path) as runtime:
            check_that_nothing_is_forgotten(
                runtime, lambda: fill(disk), (disk / "filler").unlink, "database or disk is full"
            )
        database.close()


@pytest.mark.sqlite_only
def test_a_command_says_that_the_disk_of_sqlite_may_be_full(kind: str, tmp_path: Path) -> None:
    """Without a free byte not even a read can begin, and SQLite's own words are those of a broken disk."""
    assert kind == "sqlite"
    with small_disk(tmp_path / "disk", "1m") as disk:
        url = URL.create("sqlite", database=str(disk / "queue.sqlite3"))
        database = Database(url)
        initialize(database)
        database.close()
        fill(disk)
        done = Shell(url_text(url), tmp_path).run("status")
        assert (done.returncode, done.stdout) == (Exit.DATABASE, "")
        assert "disk I/O error (its -shm file cannot grow: is the disk full?)" in done.stderr
        (disk / "filler").unlink()
        assert Shell(url_text(url), tmp_path).run("status").returncode == Exit.DONE


@pytest.mark.only_on("postgresql")
def test_jobs_that_end_while_the_disk_of_postgresql_is_full(kind: str, postgresql_server: URL, tmp_path: Path) -> None:
    assert kind == "postgresql"
    with server_folder("disk") as folder, small_disk(Path(folder, "disk"), "16m") as disk:
        Path(folder).chmod(0o755)  # the server is another user, where the tests run as root
        place = disk / "tables"
        place.mkdir()
        if os.geteuid() == 0:
            owner = pwd.getpwnam(POSTGRESQL_USER)
            os.chown(place, owner.pw_uid, owner.pw_gid)
        execute(
            postgresql_server,
            f"CREATE TABLESPACE small LOCATION '{place}'",
            "CREATE DATABASE on_small TABLESPACE small",
        )
        database = Database(postgresql_server.set(database="on_small"))
        initialize(database)
        try:
            with running(database, database.url, tmp_path) as runtime:
                check_that_nothing_is_forgotten(
                    runtime, lambda: fill(disk), (disk / "filler").unlink, "(the server's disk is full)"
                )
        finally:
            database.close()
            execute(postgresql_server, "DROP DATABASE on_small WITH (FORCE)", "DROP TABLESPACE small")


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("stop", [False, True], ids=["", "and it is stopped"])
def test_jobs_that_end_while_postgresql_is_read_only(
    runtime: Runtime, queue_url: URL, postgresql_server: URL, *, stop: bool
) -> None:
    """As after a failover: the sessions on the server that is read-only now must not stay there."""
    name = queue_url.database
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608

    def refuse() -> None:
        runtime.database.close()
        execute(postgresql_server, f"ALTER DATABASE {name} SET default_transaction_read_only = on", end)

    def allow() -> None:
        execute(postgresql_server, f"ALTER DATABASE {name} RESET default_transaction_read_only")

    check_that_nothing_is_forgotten(runtime, refuse, allow, "read-only transaction", stop=stop)


@pytest.mark.only_on("mariadb")
@pytest.mark.parametrize("stop", [False, True], ids=["", "and it is stopped"])
def test_jobs_that_end_while_mariadb_is_read_only(
    kind: str, mariadb_standby: URL, tmp_path: Path, *, stop: bool
) -> None:
    assert kind == "mariadb"
    execute(
        mariadb_standby,
        "SET GLOBAL read_only = 0",
        "CREATE DATABASE reader CHARACTER SET utf8mb4",
        "CREATE USER writer@'127.0.0.1'",
        "GRANT ALL ON reader.* TO writer@'127.0.0.1'",
    )
    database = Database(mariadb_standby.set(database="reader"))
    initialize(database)
    try:
        with running(database, database.url.set(username="writer"), tmp_path) as runtime:
            check_that_nothing_is_forgotten(
                runtime,
                lambda: execute(mariadb_standby, "SET GLOBAL read_only = 1"),
                lambda: execute(mariadb_standby, "SET GLOBAL read_only = 0"),
                "read-only option",
                stop=stop,
            )
    finally:
        database.close()
        execute(mariadb_standby, "SET GLOBAL read_only = 1", "DROP DATABASE reader", "DROP USER writer@'127.0.0.1'")


@pytest.mark.only_on("mariadb")
def test_a_worker_that_could_write_on_a_read_only_server_does_not(
    kind: str, mariadb_standby: URL, tmp_path: Path
) -> None:
    """Its user is an administrator, whom the server lets write. A heartbeat sees that the server was set read-only."""
    assert kind == "mariadb"
    execute(mariadb_standby, "SET GLOBAL read_only = 0", "CREATE DATABASE admin CHARACTER SET utf8mb4")
    database = Database(mariadb_standby.set(database="admin"))
    initialize(database)
    try:
        with running(database, database.url, tmp_path) as runtime:
            (held,) = add_jobs(database, NewJob(class_name="hold", args=["held"]))
            runtime.start("--threads", "2", "--shutdown-timeout", "1", heartbeat=0.5)
            runtime.running("held")
            worker = runtime.worker().name
            execute(mariadb_standby, "SET GLOBAL read_only = 1")
            runtime.wait_for_log(f"{worker}: heartbeat failed: the server is set read-only")
            (waiting,) = add_jobs(database, NewJob(class_name="hold", args=["waiting"]))
            runtime.let_end("held")
            until(lambda: any(line.startswith("held ended") for line in runtime.journal()), "the job has ended")
            runtime.wait_for_log(f"{worker}: mysql://root@")  # takes no writes
            assert state_of_each(database) == {held: State.CLAIMED, waiting: State.READY}
            execute(mariadb_standby, "SET GLOBAL read_only = 0")
            runtime.wait_for_log(f"{worker}: heartbeat works again")
            runtime.running("waiting")
            runtime.let_end("waiting")
            for job_id in (held, waiting):
                runtime.wait_for(job_id, State.FINISHED)
            assert runtime.worker().name == worker
    finally:
        database.close()
        execute(mariadb_standby, "SET GLOBAL read_only = 1", "DROP DATABASE admin")
