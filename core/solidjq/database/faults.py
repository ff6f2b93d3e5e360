"""Faults: what a driver's error means, such as unreachable, denied, a conflict, a missing table."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any, cast

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError

from solidjq.errors import ConflictError
from solidjq.text import mask_secrets, one_line


class Fault(Enum):
    """What a driver's error means."""

    UNREACHABLE = auto()
    NO_FILE = auto()
    NO_TABLE = auto()
    NO_COLUMN = auto()  # another version's table, or another program's
    NO_NAME = auto()  # a function of the database's own, such as a trigger's, looked for a name in our search path
    NO_DATABASE = auto()
    NOT_A_DATABASE = auto()
    DENIED = auto()
    READ_ONLY = auto()  # the server, or this transaction, takes no writes
    CONFLICT = auto()
    BUSY = auto()  # another connection writes to the SQLite file
    LOCKED = auto()  # by another transaction, for longer than this session waits
    NOT_PREPARED = auto()  # the session lacks a statement that was prepared, or has another of its name: it is shared
    NO_TRANSACTIONS = auto()  # a pooler that gives each statement another session
    STATEMENT_LOG = auto()  # the server's binary log takes no writes at our isolation level
    RESOURCES = auto()  # no disk, memory, place for a lock, transaction id or quota is left
    STORAGE = auto()  # the server could not read or write its files
    TOO_LONG = auto()
    VALUE = auto()  # a value of the statement cannot be stored, however often it is tried
    OTHER = auto()


# What may be about one row alone. The types of errors in ``errors`` say the same of each (``Scope``).
OF_ROWS = frozenset((Fault.NO_NAME, Fault.VALUE, Fault.OTHER))

_POSTGRESQL_FAULTS = {
    "42P01": Fault.NO_TABLE,
    "42703": Fault.NO_COLUMN,
    "3D000": Fault.NO_DATABASE,
    "3F000": Fault.NO_TABLE,
    "42501": Fault.DENIED,
    "25006": Fault.READ_ONLY,
    "25P03": Fault.UNREACHABLE,  # the server ended the session, which was idle in a transaction for too long
    "25P04": Fault.UNREACHABLE,  # the same, for a transaction that took too long
    "28P01": Fault.DENIED,
    "28000": Fault.DENIED,
    "26000": Fault.NOT_PREPARED,
    "42P05": Fault.NOT_PREPARED,
    "40001": Fault.CONFLICT,
    "40P01": Fault.CONFLICT,
    "53000": Fault.RESOURCES,
    "53100": Fault.RESOURCES,  # the disk is full
    "53200": Fault.RESOURCES,  # out of memory, or of max_locks_per_transaction
    "53400": Fault.RESOURCES,  # temp_file_limit
    "54000": Fault.VALUE,  # it is too long for an index; see also _IDS_OF_TRANSACTIONS
    "55P03": Fault.LOCKED,
    "57014": Fault.TOO_LONG,
}
_POSTGRESQL_CLASSES = (  # of the other codes, by how they begin
    ("08", Fault.UNREACHABLE),  # also what a pooler says of its server
    ("533", Fault.UNREACHABLE),  # out of connections
    ("57P", Fault.UNREACHABLE),  # the server shuts down or starts up
    ("58", Fault.STORAGE),
)
# Of a table, a column, a schema, a type, a function or an operator that a name leads to.
_POSTGRESQL_NAMES = frozenset(("42P01", "42703", "3F000", "42704", "42883"))
_CONNECTION_FAULTS = (
    (("database", "does not exist"), Fault.NO_DATABASE),
    (("authentication failed",), Fault.DENIED),
    (("no password supplied",), Fault.DENIED),
)
# Of a row that a policy of the table forbids; its code is that of a privilege that is missing.
_ROW_POLICY = "ExecWithCheckOptions"  # in PostgreSQL's source, so in no language
# Near the wraparound of the transaction ids no more are given out, with the code of a value that is too long.
_PROGRAM_LIMIT = "54000"
_IDS_OF_TRANSACTIONS = frozenset(("GetNewTransactionId", "GetNewMultiXactId"))  # in PostgreSQL's source
_STATEMENT_MODE = "statement pooling mode"  # in pgbouncer's words; its code has many other meanings
_MYSQL_FAULTS = {
    5: Fault.RESOURCES,  # out of memory
    1021: Fault.RESOURCES,  # the disk is full
    1037: Fault.RESOURCES,  # out of memory
    1040: Fault.UNREACHABLE,  # too many connections
    1038: Fault.RESOURCES,  # out of memory to sort in
    1041: Fault.RESOURCES,  # out of memory
    1044: Fault.DENIED,
    1045: Fault.DENIED,
    1047: Fault.UNREACHABLE,  # a node of a Galera cluster that has lost the others
    1049: Fault.NO_DATABASE,
    1053: Fault.UNREACHABLE,  # the server shuts down
    1054: Fault.NO_COLUMN,
    1072: Fault.NO_COLUMN,  # of an index that is being created
    1080: Fault.UNREACHABLE,  # the server forced this thread to end
    1114: Fault.RESOURCES,  # the table is full: so is the disk, or a tablespace of fixed size
    1130: Fault.DENIED,  # for this host
    1135: Fault.UNREACHABLE,  # the server cannot create a thread for the connection
    1142: Fault.DENIED,
    1143: Fault.DENIED,
    1146: Fault.NO_TABLE,
    1152: Fault.UNREACHABLE,  # the connection was aborted
    1203: Fault.UNREACHABLE,  # too many connections of this user
    1205: Fault.LOCKED,
    1206: Fault.RESOURCES,  # the buffer pool has no room for more locks
    1213: Fault.CONFLICT,
    1226: Fault.RESOURCES,  # a quota of this user, such as MAX_UPDATES_PER_HOUR
    1227: Fault.DENIED,
    1290: Fault.READ_ONLY,  # --read-only
    1305: Fault.CONFLICT,  # the savepoint to roll back to was lost in a deadlock
    1370: Fault.DENIED,  # to execute a function
    1317: Fault.TOO_LONG,  # somebody ended the statement by KILL QUERY
    1449: Fault.DENIED,  # the user that a trigger or a view runs as is gone
    1637: Fault.RESOURCES,  # the undo log has no room for more transactions
    1665: Fault.STATEMENT_LOG,
    1690: Fault.VALUE,  # a number out of range
    1792: Fault.READ_ONLY,
    1836: Fault.READ_ONLY,
    1878: Fault.RESOURCES,  # a temporary file could not be written
    1927: Fault.UNREACHABLE,  # MariaDB: somebody ended the connection by KILL
    1969: Fault.TOO_LONG,  # MariaDB
    3024: Fault.TOO_LONG,  # MySQL
    3101: Fault.CONFLICT,  # of a group of servers, another changed the same rows
    3170: Fault.RESOURCES,  # of a memory limit of the server's own
    3572: Fault.LOCKED,  # and the statement says NOWAIT; MariaDB says 1205
    3819: Fault.VALUE,  # a CHECK of MySQL
    4025: Fault.VALUE,  # a CHECK of MariaDB
    4031: Fault.UNREACHABLE,  # MySQL ended the session, which was idle for too long
    1698: Fault.DENIED,
    2003: Fault.UNREACHABLE,
    2005: Fault.UNREACHABLE,
    2006: Fault.UNREACHABLE,
    2013: Fault.UNREACHABLE,
}
_SQLITE_FAULTS = (
    ("unable to open database file", Fault.NO_FILE),
    ("no such table", Fault.NO_TABLE),
    ("no such column", Fault.NO_COLUMN),
    ("has no column", Fault.NO_COLUMN),
    ("file is not a database", Fault.NOT_A_DATABASE),
    ("image is malformed", Fault.NOT_A_DATABASE),
    ("malformed database schema", Fault.NOT_A_DATABASE),
    ("readonly database", Fault.DENIED),
    ("database is locked", Fault.BUSY),
    ("database table is locked", Fault.BUSY),
    ("locking protocol", Fault.CONFLICT),  # several programs open the write-ahead log at once
    ("database schema has changed", Fault.CONFLICT),
    ("out of memory", Fault.RESOURCES),
    ("disk i/o error", Fault.UNREACHABLE),
    ("database or disk is full", Fault.RESOURCES),
    ("interrupted", Fault.TOO_LONG),
    ("string or blob too big", Fault.VALUE),
)
# A file that cannot be written, for whatever reason; the operating system's words tell which.
_OF_FILES = frozenset(("58030", "XX000", 3, 1026, 1030))
_NO_ROOM = ("no space left on device", "disk quota exceeded", "error 28 ", "error 122 ")
_DUPLICATES = frozenset(("23505", 1062, 1586, "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"))
_SESSION_ENDED = "server closed the connection unexpectedly"  # in the words of PostgreSQL's client library
# What the driver's own words leave out, by its code.
_FULL_DISKS = {
    "53100": "the server's disk is full",
    "SQLITE_IOERR_SHMSIZE": "its -shm file cannot grow: is the disk full?",
}


def fault_of(error: DBAPIError) -> Fault:
    """Return what an error means, by the server's error code if it has one, else by its kind or its text."""
    fault = _fault_by_code(error)
    if fault in {Fault.OTHER, Fault.STORAGE} and _lacks_room(error):
        return Fault.RESOURCES
    # SQLSTATE classes 22 and 23, by each driver's own table; what a driver cannot even send has no code.
    return Fault.VALUE if fault is Fault.OTHER and isinstance(error, DataError | IntegrityError) else fault


def is_duplicate(error: DBAPIError) -> bool:
    """Whether a unique key exists already; a trigger, NOT NULL and a foreign key raise the same kind of error."""
    origin: Any = error.orig
    codes = (getattr(origin, "sqlite_errorname", None), getattr(origin, "sqlstate", None), *origin.args[:1])
    return not _DUPLICATES.isdisjoint(codes)


@contextmanager
def duplicate_is_conflict(words: str) -> Iterator[None]:
    """Around an INSERT of new rows: raise ConflictError, with these words, if another program inserted one of them."""
    try:
        yield
    except IntegrityError as error:
        if not is_duplicate(error):
            raise
        raise ConflictError(words) from error


def driver_error(error: Any, dialect: Dialect, *, driver: Any = None, statement: str | None = None) -> DBAPIError:
    """Return an error that the driver raised past SQLAlchemy as SQLAlchemy would have raised it.

    Whether the connection broke is decided by SQLAlchemy's own rule: psycopg's by ``driver``, the connection, which
    may be None; PyMySQL's by the error alone. Without ``driver``, ``fault_of`` decides by the error's code and kind.
    """
    broke = dialect.is_disconnect(error, driver, None)
    dbapi = dialect.loaded_dbapi.Error
    made = DBAPIError.instance(statement, None, error, dbapi, connection_invalidated=broke, dialect=dialect)
    return cast("DBAPIError", made)


@contextmanager
def past_sqlalchemy(connection: Connection, statement: str) -> Iterator[None]:
    """Let errors of calls of the driver itself, for ``statement``, be those that SQLAlchemy raises."""
    driver = connection.connection.driver_connection
    try:
        yield
    except connection.dialect.loaded_dbapi.Error as error:
        raise driver_error(error, connection.dialect, driver=driver, statement=statement) from error


def words_of(error: DBAPIError) -> str:
    """Return what the server or driver says, in one line without secrets, statements or tuples."""
    origin: Any = error.orig
    primary = getattr(getattr(origin, "diag", None), "message_primary", None)
    match getattr(origin, "args", ()):
        case _ if primary:
            text = str(primary)
        case (int(code), str(message), *_):  # PyMySQL's
            text = f"{message} (error {code})"
        case _:
            text = str(origin)
    name = getattr(origin, "sqlite_errorname", None) or getattr(origin, "sqlstate", None)
    about = f" ({_FULL_DISKS[name]})" if name in _FULL_DISKS else ""
    if name == _PROGRAM_LIMIT and _lacks_transaction_ids(error):
        about = " (let an administrator VACUUM it, and end old prepared transactions and replication slots)"
    if _SESSION_ENDED in text:  # its reason came before the driver could read it
        text = "the server ended the connection: it was told to, or it stops or crashed; its log says which"
    return mask_secrets(one_line(f"{text}{about}"))


def _lacks_room(error: DBAPIError) -> bool:
    """Whether the server could not write a file because its disk, or its quota of it, is used up."""
    code = getattr(error.orig, "sqlstate", None) or next(iter(error.orig.args if error.orig else ()), None)
    return code in _OF_FILES and any(words in str(error.orig).lower() for words in _NO_ROOM)


def _lacks_transaction_ids(error: DBAPIError) -> bool:
    return getattr(getattr(error.orig, "diag", None), "source_function", None) in _IDS_OF_TRANSACTIONS


def _is_of_a_function(error: DBAPIError, state: str) -> bool:
    return state in _POSTGRESQL_NAMES and function_of(error) is not None


def _forbids_row(error: DBAPIError) -> bool:
    """Whether a row, not the table, is denied: by a policy of the table, or by a function such as a trigger's."""
    diagnosis = getattr(error.orig, "diag", None)
    return getattr(diagnosis, "source_function", None) == _ROW_POLICY or function_of(error) is not None


def function_of(error: DBAPIError) -> str | None:
    """Return in the words of PostgreSQL which function of the database was running; None if none was."""
    context = getattr(getattr(error.orig, "diag", None), "context", None) or ""
    named = next((line for line in context.splitlines() if "function" in line), None)
    return named and mask_secrets(one_line(named))


def _postgresql_fault(error: DBAPIError, state: str) -> Fault:
    if _STATEMENT_MODE in str(error.orig):
        return Fault.NO_TRANSACTIONS
    if _is_of_a_function(error, state):
        return Fault.NO_NAME
    if state == _PROGRAM_LIMIT and _lacks_transaction_ids(error):
        return Fault.RESOURCES
    fault = _POSTGRESQL_FAULTS.get(state, Fault.OTHER)
    if fault is Fault.DENIED and _forbids_row(error):
        return Fault.OTHER
    if fault is not Fault.OTHER:
        return fault
    return next((of_class for begin, of_class in _POSTGRESQL_CLASSES if state.startswith(begin)), Fault.OTHER)


def _fault_by_code(error: DBAPIError) -> Fault:
    import sqlite3  # noqa: PLC0415

    origin = error.orig
    if isinstance(origin, sqlite3.IntegrityError):
        return Fault.OTHER  # not by its words: a trigger may say what it likes, such as "interrupted"
    if isinstance(origin, sqlite3.Error):
        message = str(origin).lower()
        return next((fault for part, fault in _SQLITE_FAULTS if part in message), Fault.OTHER)
    code = origin.args[0] if origin is not None and origin.args else None
    if isinstance(code, int):
        return _MYSQL_FAULTS.get(code, Fault.UNREACHABLE if error.connection_invalidated else Fault.OTHER)
    if state := getattr(origin, "sqlstate", None):
        return _postgresql_fault(error, state)
    # psycopg has no code for a connection that failed, only the server's text.
    message = str(origin)
    for parts, fault in _CONNECTION_FAULTS:
        if all(part in message for part in parts):
            return fault
    return Fault.UNREACHABLE if isinstance(error, OperationalError) or error.connection_invalidated else Fault.OTHER


@contextmanager
def unless_denied(connection: Connection) -> Iterator[None]:
    """Open a savepoint, and go on without what was done in it if this role may not do that, or the table is missing."""
    try:
        with connection.begin_nested():  # on PostgreSQL an error would end the transaction
            yield
    except DBAPIError as refusal:
        if fault_of(refusal) not in {Fault.DENIED, Fault.NO_TABLE}:
            raise
