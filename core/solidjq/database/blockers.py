"""Blockers: who holds the lock that a statement of this program waits for."""

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from solidjq.text import printable

_POSTGRESQL = """
SELECT b.pid, b.usename, b.application_name, extract(epoch FROM clock_timestamp() - b.xact_start) AS age
FROM pg_stat_activity a, unnest(pg_blocking_pids(a.pid)) blocker (pid) JOIN pg_stat_activity b ON b.pid = blocker.pid
WHERE a.datname = current_database() AND a.usename = current_user AND a.wait_event_type = 'Lock'
AND a.application_name = current_setting('application_name')
LIMIT 1
"""


def find_blocker(connection: Connection) -> str | None:
    """Return in words what a statement of a program of this name waits for; None if none waits for a lock.

    On SQLite only a program that lets nobody read counts: another writer is waited for by itself.
    """
    match connection.dialect.name:
        case "postgresql":
            row = connection.execute(text(_POSTGRESQL)).first()
            if row is None:
                return None
            age = "" if row.age is None else f", in a transaction of {row.age:.0f} s"
            return printable(f"session {row.pid} of {row.usename} ({row.application_name or 'no name'}) holds it{age}")
        case "mysql":
            me = connection.scalar(text("SELECT CONNECTION_ID()"))
            others = (row for row in connection.execute(text("SHOW PROCESSLIST")).mappings() if row["Id"] != me)
            return next((str(row["State"]) for row in others if _waits(row["db"], row["State"], connection)), None)
        case _:
            return _sqlite(connection)


def _waits(database: str | None, state: str | None, connection: Connection) -> bool:
    waiting = state is not None and state.startswith("Waiting for") and "lock" in state
    return waiting and database == connection.engine.url.database


def _sqlite(connection: Connection) -> str | None:
    before = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
    try:
        connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1")
    except DBAPIError:
        return "another program lets nobody read the file"
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {before}")
    return None
