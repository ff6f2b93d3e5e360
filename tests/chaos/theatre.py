"""A database on which interleavings are performed: the same before each, and it says who waits for a lock."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import audit
import psycopg
import pymysql
import rails_moves
from rails_moves import Rails
from sqlalchemy import Connection
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import tables
from support.servers import connected, execute

SEATS = 4  # actors at most
TABLES = (
    *(table.name for table in tables.solid_queue.sorted_tables),
    *(table.name for table in tables.LEDGER),
    "chaos_audit",  # last: triggers write into it
)


class Theatre:
    """A queue with the connections of its actors. Of a kind of database, a subclass."""

    def __init__(self, url: URL, oracle: Connection) -> None:
        self.oracle = oracle
        self.databases = [Database(url) for _ in range(SEATS)]
        self.rails = [Rails(rails_moves.application(url)) for _ in range(SEATS)]
        for database in self.databases:
            database.now()

    def restore(self) -> None:
        """Let the queue be as it was when this was made."""
        raise NotImplementedError

    def waiting(self) -> set[int]:
        raise NotImplementedError

    def session_of(self, connection: Connection) -> int:
        raise NotImplementedError

    def write_lock_is_free(self) -> bool:
        return True

    def close(self) -> None:
        for each in (*self.databases, *self.rails):
            each.close()


class _PostgreSQL(Theatre):
    def __init__(self, url: URL, oracle: Connection) -> None:
        execute(url, "CREATE SCHEMA saved", *(f"CREATE TABLE saved.{name} AS TABLE {name}" for name in TABLES))
        super().__init__(url, oracle)
        host, port = url.query.get("host", url.host), url.port
        self._watcher = psycopg.connect(
            host=str(host), port=port, user=url.username, dbname=url.database, autocommit=True
        )
        again = "; ".join(f"DELETE FROM {name}; INSERT INTO {name} TABLE saved.{name}" for name in TABLES)  # noqa: S608
        self._again = f"BEGIN; SET LOCAL session_replication_role = replica; {again}; COMMIT"

    def restore(self) -> None:
        self._watcher.execute(self._again)

    def waiting(self) -> set[int]:
        return {pid for (pid,) in self._watcher.execute("SELECT pid FROM pg_locks WHERE NOT granted").fetchall()}

    def session_of(self, connection: Connection) -> int:
        driver: Any = connection.connection.driver_connection
        return int(driver.info.backend_pid)

    def close(self) -> None:
        self._watcher.close()
        super().close()


class _MariaDB(Theatre):
    def __init__(self, url: URL, oracle: Connection) -> None:
        again = "; ".join(f"DELETE FROM {name}; INSERT INTO {name} SELECT * FROM saved_{name}" for name in TABLES)  # noqa: S608
        execute(
            url,
            *(f"CREATE TABLE saved_{name} AS SELECT * FROM {name}" for name in TABLES),  # noqa: S608
            f"CREATE PROCEDURE restore_all() BEGIN SET foreign_key_checks = 0; {again}; COMMIT; END",
        )
        super().__init__(url, oracle)
        self._watcher = pymysql.connect(host=url.host, port=url.port or 3306, user=url.username, database=url.database)

    def restore(self) -> None:
        with self._watcher.cursor() as cursor:
            cursor.execute("CALL restore_all()")

    def waiting(self) -> set[int]:
        # Not information_schema.innodb_trx, which repeats for a tenth of a second what it said before.
        with self._watcher.cursor() as cursor:
            cursor.execute("SHOW ENGINE INNODB STATUS")
            (row,) = cursor.fetchall()
        transactions = str(row[2]).split("---TRANSACTION ")[1:]
        sessions = [re.search(r"thread id (\d+)", each) for each in transactions if "LOCK WAIT" in each]
        return {int(found[1]) for found in sessions if found}

    def session_of(self, connection: Connection) -> int:
        driver: Any = connection.connection.driver_connection
        return int(driver.thread_id())

    def close(self) -> None:
        self._watcher.close()
        super().close()


class _SQLite(Theatre):
    def __init__(self, url: URL, oracle: Connection) -> None:
        path = Path(str(url.database))
        self._watcher = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self._watcher.execute("ATTACH DATABASE ? AS saved", [f"{path}.saved"])
        for name in TABLES:
            self._watcher.execute(f"CREATE TABLE saved.{name} AS SELECT * FROM main.{name}")  # noqa: S608
        again = "; ".join(f"DELETE FROM {name}; INSERT INTO {name} SELECT * FROM saved.{name}" for name in TABLES)  # noqa: S608
        self._again = f"BEGIN IMMEDIATE; {again}; COMMIT"
        super().__init__(url, oracle)

    def restore(self) -> None:
        self._watcher.executescript(self._again)

    def waiting(self) -> set[int]:
        return set()  # nobody begins to wait: see write_lock_is_free

    def session_of(self, connection: Connection) -> int:
        return id(connection)

    def write_lock_is_free(self) -> bool:
        try:
            self._watcher.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:  # busy
            return False
        self._watcher.execute("ROLLBACK")
        return True

    def close(self) -> None:
        self._watcher.close()
        super().close()


_KINDS: dict[str, type[Theatre]] = {"postgresql": _PostgreSQL, "mysql": _MariaDB, "sqlite": _SQLite}


@contextmanager
def opened(url: URL) -> Iterator[Theatre]:
    """Open a theatre on a queue that is prepared, and has the triggers of ``audit``."""
    with connected(url, isolation_level="AUTOCOMMIT") as oracle:
        theatre = _KINDS[url.get_backend_name()](url, oracle)
        yield theatre
        theatre.close()


def install(url: URL) -> None:
    """Install the triggers of ``audit``, and let the server find a deadlock soon."""
    if url.get_backend_name() == "postgresql":
        execute(url, f"ALTER DATABASE {url.database} SET deadlock_timeout = '20ms'")
    audit.install(url)
