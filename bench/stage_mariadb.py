"""MariaDB's stage: a throw-away server with durable commits, where it is installed."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pymysql

SETTINGS = ("version", "innodb_flush_log_at_trx_commit", "innodb_buffer_pool_size", "innodb_log_file_size")
OPTIONS = ("--innodb-buffer-pool-size=512M", "--innodb-log-file-size=256M", "--innodb-flush-log-at-trx-commit=1")
START = 60.0  # seconds
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
PROGRAMS = ("mariadb-install-db", "mariadbd")


def connect(url: str) -> "pymysql.Connection[pymysql.cursors.Cursor]":
    """Connect by a URL of this stage."""
    place, _, name = url.removeprefix("mysql://root@").partition("/")
    host, _, port = place.partition(":")
    return pymysql.connect(host=host, port=int(port), user="root", database=name or None)


class MariaDB:
    """A server of its own. A copy has the same tables and rows, but pages that were just filled."""

    name = "MariaDB"
    COPY = "bench_copy"

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: set[str] = set()
        self._admin = connect(url)
        self._admin.autocommit(True)  # noqa: FBT003

    def settings(self) -> str:
        """Spell what matters of the server's settings."""
        values = [f"{name} {self._rows(f'SELECT @@{name}')[0][0]}" for name in SETTINGS]
        return ", ".join(values).replace("version", "MariaDB", 1)

    def prepared(self, name: str, prepare: Callable[[str], object], source: str | None = None) -> str:
        """Make the database, once, and gather its statistics."""
        if name not in self._made:
            self._create(name, source)
            prepare(f"{self._url}{name}")
            self._analyze(name)
            self._made.add(name)
        return name

    def copy(self, name: str) -> str:
        """Copy it, and drop the copy before."""
        self._create(self.COPY, name)
        self._analyze(self.COPY)
        return f"{self._url}{self.COPY}"

    def settled(self, url: str, query: str) -> bool:
        """Ask on the connection that stays."""
        self._admin.select_db(url.rpartition("/")[2])
        return bool(self._rows(query)[0][0])

    def close(self) -> None:
        """Close the connection."""
        self._admin.close()

    def _rows(self, query: str) -> tuple[tuple[object, ...], ...]:
        with self._admin.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def _tables(self, name: str) -> list[str]:
        found = self._rows(f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{name}'")
        return [str(row[0]) for row in found]

    def _create(self, name: str, source: str | None) -> None:
        self._rows(f"DROP DATABASE IF EXISTS {name}")
        self._rows(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        if source is None:
            return
        self._admin.select_db(name)
        self._rows("SET foreign_key_checks = 0")
        for table in self._tables(source):
            self._rows(str(self._rows(f"SHOW CREATE TABLE {source}.{table}")[0][1]))
            self._rows(f"INSERT INTO {name}.{table} SELECT * FROM {source}.{table}")
        self._rows("SET foreign_key_checks = 1")

    def _analyze(self, name: str) -> None:
        for table in self._tables(name):
            self._rows(f"ANALYZE TABLE {name}.{table}")


def missing() -> str | None:
    """Return the first program of MariaDB's that is not installed."""
    return next((name for name in PROGRAMS if shutil.which(name, path=PATH) is None), None)


@contextmanager
def mariadb() -> Iterator[MariaDB]:
    """Start a server."""
    install, server = (str(shutil.which(name, path=PATH)) for name in PROGRAMS)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        (Path(folder) / "temporary").mkdir()  # a server that starts empties this one, also of another server's files
        own = [f"--datadir={folder}/data", f"--tmpdir={folder}/temporary"]
        common = ["--no-defaults", *own, *(["--user=root"] if os.geteuid() == 0 else []), *OPTIONS]
        making = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run([install, *common, *making], check=True, capture_output=True)  # noqa: S603
        port = _free_port()
        where = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/socket", f"--log-error={folder}/log"]
        running = subprocess.Popen([server, *common, *where])  # noqa: S603
        try:
            stage = _answering(f"mysql://root@127.0.0.1:{port}/")
            yield stage
            stage.close()
        finally:
            running.terminate()
            running.wait()


def _answering(url: str) -> MariaDB:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        with suppress(pymysql.OperationalError):
            return MariaDB(url)
        time.sleep(0.1)
    raise TimeoutError("MariaDB does not answer")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
