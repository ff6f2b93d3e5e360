"""What a driver's error means, and whether it is about a few rows or about the whole server."""

import sqlite3
import threading
import uuid
from types import SimpleNamespace

import psycopg
import pymysql
import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from solidjq import Database
from solidjq.database.faults import OF_ROWS, Fault
from solidjq.database.transactions import _TRANSLATIONS
from solidjq.errors import (
    AccessDeniedError,
    BusyError,
    ConflictError,
    DatabaseError,
    DatabaseUnreachableError,
    LockedError,
    NotAQueueError,
    OutOfResourcesError,
    Scope,
    StorageError,
    TookTooLongError,
    ValueRefusedError,
)
from support.servers import execute
from support.waiting import PATIENCE, until

POSTGRESQL, MYSQL, SQLITE = "postgresql+psycopg://nobody@/", "mysql+pymysql://nobody@localhost/", "sqlite:///nowhere"


class NoTransactionIds(psycopg.errors.ProgramLimitExceeded):
    """What PostgreSQL says near the wraparound of its transaction ids, in its own language."""

    diag = SimpleNamespace(source_function="GetNewTransactionId", message_primary="keine Befehle", context=None)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("url", "error", "expected"),
    [
        (POSTGRESQL, psycopg.OperationalError("the connection is closed"), DatabaseUnreachableError),
        (POSTGRESQL, psycopg.errors.AdminShutdown("terminating connection"), DatabaseUnreachableError),
        (POSTGRESQL, psycopg.ProgrammingError("can't change 'autocommit' now"), DatabaseError),
        (POSTGRESQL, psycopg.errors.DeadlockDetected("deadlock detected"), ConflictError),
        (POSTGRESQL, psycopg.errors.OutOfMemory("out of shared memory"), OutOfResourcesError),
        (POSTGRESQL, psycopg.errors.DiskFull("could not extend file"), OutOfResourcesError),
        (POSTGRESQL, psycopg.errors.InternalError_("could not write: Disk quota exceeded"), OutOfResourcesError),
        (POSTGRESQL, psycopg.errors.InternalError_("invalid memory alloc request size 1200000004"), DatabaseError),
        (POSTGRESQL, psycopg.errors.ConfigurationLimitExceeded("temporary file size exceeds"), OutOfResourcesError),
        (POSTGRESQL, psycopg.errors.ProgramLimitExceeded("index row size 3000 exceeds maximum"), ValueRefusedError),
        (POSTGRESQL, NoTransactionIds("database is not accepting commands"), OutOfResourcesError),
        (POSTGRESQL, psycopg.errors.IoError("could not fsync file"), StorageError),
        (POSTGRESQL, psycopg.errors.IoError("could not extend file: No space left on device"), OutOfResourcesError),
        (POSTGRESQL, psycopg.errors.UndefinedFile("could not open file"), StorageError),
        (POSTGRESQL, psycopg.errors.IdleInTransactionSessionTimeout("terminating"), DatabaseUnreachableError),
        (POSTGRESQL, psycopg.errors.IdleSessionTimeout("terminating connection"), DatabaseUnreachableError),
        (POSTGRESQL, psycopg.errors.ProtocolViolation("query_wait_timeout"), DatabaseUnreachableError),
        (POSTGRESQL, psycopg.errors.RaiseException("refused by a trigger"), DatabaseError),
        (POSTGRESQL, psycopg.errors.TooManyConnections("too many clients already"), DatabaseUnreachableError),
        (POSTGRESQL, psycopg.errors.UniqueViolation("duplicate key"), ValueRefusedError),
        (MYSQL, pymysql.err.InterfaceError(0, ""), DatabaseUnreachableError),
        (MYSQL, pymysql.err.OperationalError(2013, "Lost connection"), DatabaseUnreachableError),
        (MYSQL, pymysql.err.OperationalError(1040, "Too many connections"), DatabaseUnreachableError),
        (MYSQL, pymysql.err.OperationalError(1927, "Connection was killed"), DatabaseUnreachableError),
        (MYSQL, pymysql.err.OperationalError(4031, "disconnected because of inactivity"), DatabaseUnreachableError),
        (MYSQL, pymysql.err.OperationalError(1053, "Server shutdown in progress"), DatabaseUnreachableError),
        (MYSQL, pymysql.err.InternalError(1047, "WSREP has not yet prepared node"), DatabaseUnreachableError),
        (MYSQL, pymysql.err.OperationalError(1317, "Query execution was interrupted"), TookTooLongError),
        (MYSQL, pymysql.err.OperationalError(1205, "Lock wait timeout exceeded"), LockedError),
        (MYSQL, pymysql.err.OperationalError(1290, "running with the --read-only option"), AccessDeniedError),
        (MYSQL, pymysql.err.OperationalError(1836, "Running in read-only mode"), AccessDeniedError),
        (MYSQL, pymysql.err.OperationalError(3170, "Memory capacity exceeded"), OutOfResourcesError),
        (MYSQL, pymysql.err.OperationalError(1114, "The table is full"), OutOfResourcesError),
        (MYSQL, pymysql.err.OperationalError(3101, "Plugin instructed the server to rollback"), ConflictError),
        # A transaction that is too large for a cluster: half of it may not be.
        (MYSQL, pymysql.err.OperationalError(1180, 'Got error 90 "Message too long" during COMMIT'), DatabaseError),
        (MYSQL, pymysql.err.OperationalError(1197, "Multi-statement transaction required more"), DatabaseError),
        (MYSQL, pymysql.err.OperationalError(1021, "Disk full (/tmp/#sql)"), OutOfResourcesError),
        (MYSQL, pymysql.err.OperationalError(1206, "The total number of locks exceeds"), OutOfResourcesError),
        (MYSQL, pymysql.err.InternalError(1030, 'Got error 28 "No space left on device"'), OutOfResourcesError),
        (MYSQL, pymysql.err.InternalError(1030, 'Got error 168 "Unknown"'), DatabaseError),
        (MYSQL, pymysql.err.OperationalError(1644, "No space left on device, says a trigger"), DatabaseError),
        (MYSQL, pymysql.err.OperationalError(1213, "Deadlock found"), ConflictError),
        (MYSQL, pymysql.err.OperationalError(3572, "could not be acquired immediately and NOWAIT is set"), LockedError),
        (MYSQL, pymysql.err.ProgrammingError(1064, "You have an error in your SQL syntax"), DatabaseError),
        (SQLITE, sqlite3.OperationalError("database is locked"), BusyError),
        (SQLITE, sqlite3.OperationalError("locking protocol"), ConflictError),
        (SQLITE, sqlite3.OperationalError("database table is locked"), BusyError),
        (SQLITE, sqlite3.DatabaseError("database disk image is malformed"), NotAQueueError),
        (SQLITE, sqlite3.OperationalError("attempt to write a readonly database"), AccessDeniedError),
        (SQLITE, sqlite3.OperationalError("disk I/O error"), DatabaseUnreachableError),
        (SQLITE, sqlite3.OperationalError("out of memory"), OutOfResourcesError),
        (SQLITE, sqlite3.OperationalError("database or disk is full"), OutOfResourcesError),
        (SQLITE, sqlite3.IntegrityError("interrupted, says a trigger"), ValueRefusedError),
        (SQLITE, sqlite3.OperationalError("near HELLO: syntax error"), DatabaseError),
    ],
)
def test_an_error_past_sqlalchemy(url: str, error: Exception, expected: type[DatabaseError]) -> None:
    with pytest.raises(DatabaseError) as caught, Database(make_url(url))._errors():
        raise error
    assert type(caught.value) is expected


def test_faults_and_errors_agree_on_what_may_be_about_one_row() -> None:
    by_fault = {fault: kind.scope is Scope.ROWS for fault, (kind, _) in _TRANSLATIONS.items()}
    assert {fault for fault, is_of_rows in by_fault.items() if is_of_rows} == OF_ROWS
    assert set(Fault) - by_fault.keys() <= {Fault.NO_TABLE, Fault.NO_FILE}


# -- what the servers say ---------------------------------------------------------------------------------------------

TABLE = "CREATE TABLE t (id integer, note varchar(9))"
AS_SOMEONE = (TABLE, "GRANT ALL ON t TO pg_monitor", "CREATE TABLE u (id integer)")
SAYS: dict[str, list[tuple[type[DatabaseError], tuple[str, ...]]]] = {
    "sqlite": [
        (OutOfResourcesError, (TABLE, "PRAGMA max_page_count = 1", "INSERT INTO t VALUES (1, zeroblob(100000))")),
        (
            ValueRefusedError,
            (
                TABLE,
                "CREATE TRIGGER r BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
                "INSERT INTO t VALUES (1, '')",
            ),
        ),
    ],
    "postgresql": [
        (
            DatabaseError,  # a policy forbids the row
            (
                *AS_SOMEONE,
                "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
                "CREATE POLICY p ON t WITH CHECK (id < 5)",
                "SET ROLE pg_monitor",
                "INSERT INTO t VALUES (9)",
            ),
        ),
        (
            DatabaseError,  # a trigger may do for one row alone what this role may not
            (
                *AS_SOMEONE,
                (
                    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS "
                    "$$ BEGIN INSERT INTO u VALUES (1); RETURN NEW; END $$"
                ),
                "CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
                "SET ROLE pg_monitor",
                "INSERT INTO t VALUES (9)",
            ),
        ),
        (AccessDeniedError, (*AS_SOMEONE, "SET ROLE pg_monitor", "INSERT INTO u VALUES (9)")),
        (TookTooLongError, ("SET statement_timeout = 1", "SELECT pg_sleep(60)")),
        (ValueRefusedError, (TABLE, "INSERT INTO t VALUES (1, 'more than nine')")),
    ],
    "mariadb": [
        (
            OutOfResourcesError,  # The table 't' is full
            (
                "SET max_heap_table_size = 16384",
                "CREATE TABLE t (note char(200)) ENGINE = MEMORY",
                *(["INSERT INTO t VALUES (1), (2), (3), (4)"] * 100),
            ),
        ),
        (
            AccessDeniedError,
            (
                TABLE,
                "CREATE DEFINER = gone@nowhere TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET @seen = 1",
                "INSERT INTO t VALUES (1, '')",
            ),
        ),
        (ValueRefusedError, (TABLE, "INSERT INTO t VALUES (1, 'more than nine')")),
    ],
}


@pytest.mark.parametrize(
    ("kind", "expected", "statements"),
    [(kind, expected, statements) for kind, cases in SAYS.items() for expected, statements in cases],
    indirect=["kind"],
)
def test_what_the_servers_say(empty_url: URL, expected: type[DatabaseError], statements: tuple[str, ...]) -> None:
    database = Database(empty_url)
    with pytest.raises(DatabaseError) as caught, database._errors():
        execute(empty_url, *statements)
    assert type(caught.value) is expected, caught.value
    database.close()


@pytest.mark.only_on("mariadb")
def test_a_quota_of_the_user_concerns_all_rows(own: Database, kind: str) -> None:
    assert kind == "mariadb"
    user = f"d{uuid.uuid4().hex[:12]}"
    execute(
        own.url,
        TABLE,
        f"CREATE USER {user}@'%' WITH MAX_UPDATES_PER_HOUR 1",
        f"GRANT INSERT ON {own.url.database}.t TO {user}@'%'",
    )
    limited = Database(own.url.set(username=user))
    try:
        with pytest.raises(OutOfResourcesError, match="max_updates"), limited._errors():
            execute(limited.url, *(["INSERT INTO t VALUES (1, '')"] * 3))
    finally:
        execute(own.url, f"DROP USER {user}@'%'")
        limited.close()


def test_a_wraparound_is_named_with_what_to_do() -> None:
    words = r"no room left: keine Befehle \(let an administrator VACUUM it"
    with pytest.raises(OutOfResourcesError, match=words), Database(make_url(POSTGRESQL))._errors():
        raise NoTransactionIds


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("first", ["", "SELECT 1"])
def test_a_session_that_is_ended_is_said_in_one_plain_line(database: Database, first: str) -> None:
    """Of the first statement, which is sent with the BEGIN, the driver loses the server's own words."""
    words: list[str] = []
    reader = Database(database.url, name="to be ended")

    def wait() -> None:
        try:
            with reader.read() as connection:
                for statement in filter(None, (first, "SELECT pg_sleep(600)")):
                    connection.execute(text(statement))
        except DatabaseUnreachableError as error:
            words.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    sleeping = "SELECT pid FROM pg_stat_activity WHERE application_name = 'to be ended' AND wait_event = 'PgSleep'"
    with database.outside_transactions() as connection:
        until(lambda: connection.scalar(text(sleeping)), "the statement runs")
        connection.execute(text(f"SELECT pg_terminate_backend(({sleeping}))"))
    thread.join(PATIENCE)
    reader.close()
    (said,) = words
    assert said.endswith(
        "terminating connection due to administrator command"
        if first
        else ": the server ended the connection: it was told to, or it stops or crashed; its log says which"
    )
