"""What differs between PostgreSQL, MySQL/MariaDB and SQLite. No other file asks which of them it speaks to.

SQLAlchemy's own part for a database, and its driver, are imported only where that database is used: together they can
take a tenth of a second.
"""

import json
import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    CursorResult,
    Dialect,
    Engine,
    Executable,
    FromClause,
    Integer,
    LargeBinary,
    MetaData,
    QueuePool,
    Row,
    Select,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    select,
    text,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from solidjq.database.urls import NO_PREPARE
from solidjq.errors import AccessDeniedError, ConflictError, UsageError
from solidjq.text import one_line

if TYPE_CHECKING:
    import sqlite3

    import psycopg

# Where nobody asked for SQLAlchemy's log, its last resort would print a stack on Ctrl-C in the middle of a statement.
logging.getLogger("sqlalchemy").addHandler(logging.NullHandler())

PLAN_ANEW = 0.005  # seconds that a statement may take and keep its plan
MOST_SLOW = 1024  # times in a row that it may take longer, once many plans made it no quicker
BUSY_TIMEOUT = 5.0  # seconds an SQLite writer waits for another
CONNECT_TIMEOUT = 10  # seconds
SCHEMA_LOCK_TIMEOUT = 30  # seconds
WRITES = "solidjq_writes"  # execution option of a connection that will write
NO_TRANSACTION = "solidjq_no_transaction"  # of one whose statements commit each by itself, on SQLite


# -- times ------------------------------------------------------------------------------------------------------------
# Rails keeps UTC without a zone everywhere; on SQLite as text, with 6 fraction digits, or 3 after a bulk insert.


class _SqliteDateTime(UserDefinedType[datetime]):
    """Rails' ``datetime(6)`` on SQLite: text such as ``2026-11-23 04:40:22.022096``."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "datetime(6)"

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], str | None]:  # noqa: ARG002
        return lambda value: None if value is None else _write_sqlite_time(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[object], datetime | None]:  # noqa: ARG002
        return _read_sqlite_time


def _write_sqlite_time(value: datetime) -> str:
    return value.isoformat(sep=" ", timespec="microseconds")


def _read_sqlite_time(value: object) -> datetime | None:
    """Read what Rails or anybody else left in the column; None where it is no time at all."""
    try:
        return datetime.fromisoformat(str(value)) if value is not None else None
    except ValueError:
        return None


class UtcDateTime(TypeDecorator[datetime]):
    """Microseconds, stored without a zone as UTC; aware datetimes in Python."""

    impl = _SqliteDateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the type that Rails gives such a column."""
        if dialect.name == "postgresql":
            from sqlalchemy.dialects import postgresql  # noqa: PLC0415

            return dialect.type_descriptor(postgresql.TIMESTAMP(precision=6))
        if dialect.name == "mysql":
            from sqlalchemy.dialects import mysql  # noqa: PLC0415

            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(_SqliteDateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Take the zone off."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Put the zone on."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


class AnyText(TypeDecorator[str]):
    """Long text. SQLite keeps whatever a program once put into the column; bytes are read as UTF-8."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: object, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Decode what is not text."""
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else cast("str | None", value)


class _SqliteBoundary(_SqliteDateTime):
    """A time to compare with. Text compares right with 0, 3 and 6 stored digits once trailing zeros are gone."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], str | None]:  # noqa: ARG002
        return lambda value: None if value is None else _write_sqlite_time(value).rstrip("0").rstrip(".")


class _UtcBoundary(UtcDateTime):
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(_SqliteBoundary())
        return super().load_dialect_impl(dialect)


def boundary(value: datetime) -> BindParameter[datetime]:
    """Return ``value`` for ``column >= boundary`` and ``column < boundary``, right on all databases."""
    return expression.bindparam(None, value, type_=_UtcBoundary(), unique=True)


class utcnow(expression.FunctionElement[datetime]):  # noqa: N801  (used like an SQL function)
    """The database's clock. It stands still within one statement, so that an index can serve a comparison with it."""

    type = UtcDateTime()
    inherit_cache = True


class ago(expression.FunctionElement[datetime]):  # noqa: N801
    """The database's clock ``seconds`` before now; negative for the future."""

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: float) -> None:
        super().__init__(expression.bindparam(None, round(seconds * 1_000_000), type_=BigInteger(), unique=True))


@compiles(utcnow, "postgresql")
def _utcnow_postgresql(_element: utcnow, _compiler: SQLCompiler, **_: Any) -> str:
    return "timezone('UTC', statement_timestamp())"


@compiles(utcnow, "mysql")
def _utcnow_mysql(_element: utcnow, _compiler: SQLCompiler, **_: Any) -> str:
    return "UTC_TIMESTAMP(6)"


@compiles(utcnow, "sqlite")
def _utcnow_sqlite(_element: utcnow, _compiler: SQLCompiler, **_: Any) -> str:
    # SQLite's clock counts milliseconds; the zeros make it as wide as what Rails writes.
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


@compiles(ago, "postgresql")
def _ago_postgresql(element: ago, compiler: SQLCompiler, **kw: Any) -> str:
    microseconds = compiler.process(element.clauses, **kw)
    return f"(timezone('UTC', statement_timestamp()) - {microseconds} * interval '1 microsecond')"


@compiles(ago, "mysql")
def _ago_mysql(element: ago, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(UTC_TIMESTAMP(6) - INTERVAL {compiler.process(element.clauses, **kw)} MICROSECOND)"


@compiles(ago, "sqlite")
def _ago_sqlite(element: ago, compiler: SQLCompiler, **kw: Any) -> str:
    microseconds = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', (-{microseconds} / 1000000.0) || ' seconds')"


def clock(connection: Connection) -> datetime:
    """Read the database's clock."""
    now: datetime = connection.execute(select(utcnow())).scalar_one()
    return now


def up_since(connection: Connection) -> datetime | None:
    """Tell when the database server came up, by its own clock; None for SQLite, which nobody starts."""
    match connection.dialect.name:
        case "postgresql":
            started: datetime = connection.execute(text("SELECT pg_postmaster_start_time()")).scalar_one()
            return started.astimezone(UTC)
        case "mysql":
            _name, seconds = connection.execute(text("SHOW GLOBAL STATUS LIKE 'Uptime'")).one()
            return clock(connection) - timedelta(seconds=int(seconds))
        case _:
            return None


# -- connections ------------------------------------------------------------------------------------------------------


def create(url: URL, *, name: str, read_only: bool = False) -> Engine:
    """Make an engine; nothing is connected yet. ``name`` tells the server's administrator who it is.

    With ``read_only`` the database itself refuses every change that comes through it.

    Raises ImportError when the driver is missing.
    """
    backend = url.get_backend_name()
    if backend == "sqlite":
        return _create_sqlite(url, read_only=read_only)
    # One statement of each move sees what others committed before it; under MySQL's default the SELECT of a claim
    # would also lock the gaps between rows, and workers would deadlock with enqueuers.
    options: dict[str, Any] = {"isolation_level": "READ COMMITTED", "pool_size": 5, "max_overflow": 5}
    if backend == "postgresql":
        options["use_native_hstore"] = False  # no column of ours is one; to ask for its type takes two round trips
        arguments: dict[str, Any] = {
            "application_name": name,
            "connect_timeout": CONNECT_TIMEOUT,
            # A server that vanished without a word is noticed within half a minute instead of a quarter of an hour.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 4,
            "tcp_user_timeout": 30_000,
        }
        if NO_PREPARE in url.query:
            url = url.difference_update_query([NO_PREPARE])
            arguments["prepare_threshold"] = None
    else:
        arguments = {"connect_timeout": CONNECT_TIMEOUT, "program_name": name}
        if read_only:
            arguments["init_command"] = "SET SESSION TRANSACTION READ ONLY"
    arguments = {k: v for k, v in arguments.items() if k not in url.query}
    engine = create_engine(url, connect_args=arguments, **options)
    if read_only and backend == "postgresql":
        engine = engine.execution_options(postgresql_readonly=True)

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: Dialect, _record: object, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            return dialect.connect(*given, **named)
        except (ValueError, TypeError, AttributeError, LookupError, OSError) as error:
            raise UsageError(f"an option of the database's URL cannot be used: {one_line(str(error))}") from error

    return engine


def without_transaction(connection: Connection) -> Connection:
    """Let each statement commit by itself, for what no transaction may hold."""
    if connection.dialect.name == "sqlite":  # the driver does, as long as nobody begins one
        return connection.execution_options(**{NO_TRANSACTION: True})
    return connection.execution_options(isolation_level="AUTOCOMMIT")


def _create_sqlite(url: URL, *, read_only: bool) -> Engine:
    import sqlite3  # noqa: PLC0415

    path = Path(url.database or "").absolute()

    def connect() -> sqlite3.Connection:
        # mode=rw: opening must never make an empty file where a queue was expected. Autocommit: BEGIN is ours.
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        connection.text_factory = _decode
        connection.create_function("unquote", 1, _unquote, deterministic=True)
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred BEGIN takes the write lock only at its first write: two claims that both read before they wrote
        # were handed the same job.
        options = connection.get_execution_options()
        if not options.get(NO_TRANSACTION, False):
            connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(WRITES, False) else "BEGIN")

    return engine


def _decode(text: bytes) -> str:
    """Read text that some program stored in another encoding: it must not hide all other rows."""
    return text.decode("utf-8", "replace")


def create_sqlite_file(url: URL) -> None:
    """Make the file of an SQLite queue, in WAL mode, and its folder, unless there is one.

    Raises AccessDeniedError where no file can be made.
    """
    import sqlite3  # noqa: PLC0415

    path = Path(url.database or "").absolute()
    try:
        if path.is_file() and path.stat().st_size:
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    except (OSError, sqlite3.Error) as error:
        if "locked" in str(error):  # another jq init is doing the same; this does not wait for the busy timeout
            return
        raise AccessDeniedError(f"cannot make {path}: {one_line(str(error))}") from error


@contextmanager
def schema_lock(connection: Connection) -> Iterator[None]:
    """Let one ``jq init`` at a time through."""
    match connection.dialect.name:
        case "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('solidjq.init'))"))
            yield
        case "mysql":  # where CREATE TABLE ends the transaction, and a lock of the transaction with it
            name = "CONCAT('solidjq.init.', DATABASE())"
            if not connection.scalar(text(f"SELECT GET_LOCK({name}, {SCHEMA_LOCK_TIMEOUT})")):
                raise ConflictError("another jq init is at work on this database; try again when it is done")
            connection.execute(text("SET SESSION default_storage_engine = InnoDB"))  # no other one has transactions
            try:
                yield
                connection.execute(text("COMMIT"))  # the next one, once it has the lock, must see what this one wrote
            finally:
                connection.execute(text(f"DO RELEASE_LOCK({name})"))
        case _:  # BEGIN IMMEDIATE has done it
            yield


@contextmanager
def time_limit(connection: Connection, seconds: float) -> Iterator[None]:
    """Let no statement of this transaction run longer; the one that does fails with TookTooLongError."""
    match connection.dialect.name:
        case "postgresql":  # it ends with the transaction
            connection.execute(text(f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}"))
            yield
        case "mysql":
            if getattr(connection.dialect, "is_mariadb", False):
                name, value = "max_statement_time", f"{seconds:f}"
            else:
                name, value = "max_execution_time", str(max(1, round(seconds * 1000)))
            connection.execute(text(f"SET SESSION {name} = {value}"))
            try:
                yield
            finally:
                connection.execute(text(f"SET SESSION {name} = DEFAULT"))
        case _:
            deadline = time.monotonic() + seconds
            driver = cast("sqlite3.Connection", connection.connection.driver_connection)
            driver.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            try:
                yield
            finally:
                driver.set_progress_handler(None, 0)


# -- columns of others ------------------------------------------------------------------------------------------------
# A later Solid Queue's, or an application's own: of any type that the database has. They are kept as JSON texts.

_COLUMN_TYPES = {
    "postgresql": "SELECT attname, format_type(atttypid, -1) FROM pg_attribute "
    "WHERE attrelid = CAST(quote_ident(:name) AS regclass) AND attnum > 0 AND NOT attisdropped "
    "AND attgenerated = '' AND attidentity <> 'a' ORDER BY attnum",
    "mysql": "SELECT column_name, data_type FROM information_schema.columns "
    "WHERE table_schema = DATABASE() AND table_name = :name AND COALESCE(generation_expression, '') = '' "
    "ORDER BY ordinal_position",
    "sqlite": "SELECT name, type FROM pragma_table_xinfo(:name) WHERE hidden = 0 ORDER BY cid",
}
_MYSQL_BINARY = re.compile("bit|.*(?:binary|blob)|point|linestring|polygon|multi.*|geom.*")


def column_types(connection: Connection, table: Table) -> dict[str, str]:
    """Return the columns of a table that can be inserted, with their types; not what the database makes of others."""
    asked = text(_COLUMN_TYPES[connection.dialect.name])
    return {str(name): str(kind) for name, kind in connection.execute(asked, {"name": table.name})}


def packed(connection: Connection, source: FromClause, types: Mapping[str, str]) -> ColumnElement[str]:
    """Return these columns of a row as one JSON object, of texts that ``unpacked`` makes the same values of."""
    dialect = connection.dialect.name
    build = func.json_build_object if dialect == "postgresql" else func.json_object
    pairs = ((expression.cast(name, Text), _as_text(dialect, source.c[name], kind)) for name, kind in types.items())
    return expression.cast(build(*(part for pair in pairs for part in pair)), Text)


def _as_text(dialect: str, column: ColumnElement[Any], kind: str) -> ColumnElement[Any]:
    if dialect == "sqlite":  # where each value has a type of its own
        return func.quote(column)
    if dialect == "mysql" and _MYSQL_BINARY.fullmatch(kind):
        return func.hex(column)
    # MySQL would cut a float to 6 digits, and a double to none.
    exact = column + expression.literal_column("0e0") if dialect == "mysql" and kind == "float" else column
    return expression.cast(exact, Text)


def unpacked(connection: Connection, pack: ColumnElement[str], name: str, kind: str) -> ColumnElement[Any]:
    """Return the value of one column, for an insert, from what ``packed`` made."""
    path = f"$.{json.dumps(name, ensure_ascii=False)}"
    match connection.dialect.name:
        case "postgresql":
            return expression.cast(expression.cast(pack, JSON)[name].as_string(), _Spelled(kind))
        case "mysql":
            found = func.json_extract(pack, path)  # unquoted, JSON's null would be the text 'null'
            value = expression.case((func.json_type(found) != "NULL", func.json_unquote(found)))
            return func.unhex(value) if _MYSQL_BINARY.fullmatch(kind) else value
        case _:
            return func.unquote(expression.cast(func.json_extract(pack, path), LargeBinary))


class _Spelled(UserDefinedType[Any]):
    """A type as the database spells it."""

    cache_ok = True

    def __init__(self, spelled: str) -> None:
        self.spelled = spelled

    def get_col_spec(self, **_: Any) -> str:
        return self.spelled


def _unquote(quoted: bytes) -> str | bytes | float | None:
    """Read what SQLite's own function ``quote`` has written, exactly; there is none that does."""
    literal = _decode(quoted)
    if literal.startswith("'"):
        return literal[1:-1].replace("''", "'")
    if literal.startswith("X'"):
        return bytes.fromhex(literal[2:-1])
    if literal == "NULL":
        return None
    return int(literal) if literal.lstrip("-").isdigit() else float(literal)


def never_reuse_ids(metadata: MetaData) -> None:
    """Make tables on SQLite with AUTOINCREMENT, as Rails does: no id is given out twice.

    Said of a table beforehand it would load SQLAlchemy's part for SQLite, whatever database is in use.
    """

    @event.listens_for(metadata, "before_create")
    def _say_so(_metadata: MetaData, connection: Connection, *, tables: Collection[Table], **_: Any) -> None:
        if connection.dialect.name == "sqlite":
            for table in tables:
                if table.autoincrement_column is not None:
                    table.kwargs["sqlite_autoincrement"] = True


# -- indexes ----------------------------------------------------------------------------------------------------------


def invalid_indexes(connection: Connection) -> set[str]:
    """Return the names of indexes that are there and serve nobody: PostgreSQL keeps those that it could not finish."""
    if connection.dialect.name != "postgresql":
        return set()
    unfinished = (
        "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE NOT indisvalid AND pg_table_is_visible(indrelid)"
    )
    return set(connection.scalars(text(unfinished)))


@contextmanager
def index_lock(connection: Connection) -> Iterator[None]:
    """Let one program make indexes. Raises ConflictError if another is at it: what looks unfinished is its work."""
    match connection.dialect.name:
        case "postgresql":
            take = "SELECT pg_try_advisory_lock(hashtext('solidjq.indexes'))"
            give = "SELECT pg_advisory_unlock(hashtext('solidjq.indexes'))"
        case "mysql":
            take = "SELECT GET_LOCK(CONCAT('solidjq.indexes.', DATABASE()), 0)"
            give = "SELECT RELEASE_LOCK(CONCAT('solidjq.indexes.', DATABASE()))"
        case _:  # it waits for the writer before it
            yield
            return
    if not connection.scalar(text(take)):
        raise ConflictError("another jq init --indexes is at work on this database; try again when it is done")
    try:
        yield
    finally:
        connection.execute(text(give))


def create_index(connection: Connection, name: str, table: str, columns: Sequence[str], *, unique: bool) -> None:
    """Make an index without stopping those who write. The connection must be outside of any transaction."""
    quote_name = connection.dialect.identifier_preparer.quote
    kind = "UNIQUE INDEX" if unique else "INDEX"
    what = f"{quote_name(name)} ON {quote_name(table)} ({', '.join(map(quote_name, columns))})"
    match connection.dialect.name:
        case "postgresql":
            connection.execute(text("SET statement_timeout = 0"))  # it takes as long as it takes
            try:
                connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {quote_name(name)}"))  # an unfinished one
                connection.execute(text(f"CREATE {kind} CONCURRENTLY {what}"))
            finally:
                connection.execute(text("RESET statement_timeout"))
        case "mysql":
            connection.execute(text(f"CREATE {kind} {what} ALGORITHM=INPLACE LOCK=NONE"))
        case _:
            connection.execute(text(f"CREATE {kind} IF NOT EXISTS {what}"))


# -- notifications ----------------------------------------------------------------------------------------------------


def notify(connection: Connection, channel: str) -> None:
    """Send word on a channel once this transaction is committed, where the database can."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"NOTIFY {channel}")


def notifying(channel: str) -> ColumnElement[Any]:
    """Do the same as a part of a statement, where the database can change several tables in one."""
    return func.pg_notify(channel, "")


def notifications(connection: Connection, channel: str) -> Iterator[None]:
    """Yield once when listening, then whenever word has come on the channel.

    Nothing where the database has no such thing. The connection must be outside of any transaction.
    """
    if connection.dialect.name != "postgresql":
        return
    connection.exec_driver_sql(f"LISTEN {channel}")
    yield
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    try:
        for _ in driver.notifies():
            yield
    except driver.Error as error:  # SQLAlchemy does not see this one
        raise DBAPIError("LISTEN", None, error, connection_invalidated=True) from error


def create_notifier(connection: Connection, name: str, table: str, channel: str) -> bool:
    """Make a trigger that sends word for every statement that inserts into the table. False where there are none."""
    if connection.dialect.name != "postgresql":
        return False
    body = f"BEGIN NOTIFY {channel}; RETURN NULL; END"
    for statement in (
        f"SET LOCAL lock_timeout = {SCHEMA_LOCK_TIMEOUT * 100}",  # whoever enqueues waits behind us meanwhile
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS '{body}'",
        f"DROP TRIGGER IF EXISTS {name} ON {table}",
        f"CREATE TRIGGER {name} AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {name}()",
    ):
        connection.exec_driver_sql(statement)
    return True


def drop_notifier(connection: Connection, name: str, table: str) -> None:
    """Remove such a trigger, if it is there."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name} ON {table}")
        connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {name}()")


# -- errors -----------------------------------------------------------------------------------------------------------


class Fault(Enum):
    """What kind of trouble a driver's error is."""

    UNREACHABLE = auto()
    NO_FILE = auto()
    NO_TABLE = auto()
    NO_COLUMN = auto()  # another version's table, or some other program's
    NO_DATABASE = auto()
    NOT_A_DATABASE = auto()
    DENIED = auto()
    CONFLICT = auto()
    TOO_LONG = auto()
    OTHER = auto()


_POSTGRESQL_FAULTS = {
    "42P01": Fault.NO_TABLE,
    "42703": Fault.NO_COLUMN,
    "3D000": Fault.NO_DATABASE,
    "3F000": Fault.NO_TABLE,
    "42501": Fault.DENIED,
    "25006": Fault.DENIED,  # read-only transaction: a replica
    "28P01": Fault.DENIED,
    "28000": Fault.DENIED,
    "40001": Fault.CONFLICT,
    "40P01": Fault.CONFLICT,
    "55P03": Fault.CONFLICT,
    "57014": Fault.TOO_LONG,
}
_MYSQL_FAULTS = {
    1044: Fault.DENIED,
    1045: Fault.DENIED,
    1049: Fault.NO_DATABASE,
    1054: Fault.NO_COLUMN,
    1072: Fault.NO_COLUMN,  # of an index to be made
    1142: Fault.DENIED,
    1143: Fault.DENIED,
    1146: Fault.NO_TABLE,
    1205: Fault.CONFLICT,
    1213: Fault.CONFLICT,
    1290: Fault.DENIED,  # --read-only
    1305: Fault.CONFLICT,  # the savepoint to go back to: a deadlock has taken it away
    1792: Fault.DENIED,  # read-only transaction
    1836: Fault.DENIED,
    1969: Fault.TOO_LONG,  # MariaDB
    3024: Fault.TOO_LONG,  # MySQL
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
    ("malformed", Fault.NOT_A_DATABASE),
    ("readonly database", Fault.DENIED),
    ("database is locked", Fault.CONFLICT),
    ("database table is locked", Fault.CONFLICT),
    ("disk i/o error", Fault.UNREACHABLE),
    ("interrupted", Fault.TOO_LONG),
)


def fault_of(error: DBAPIError) -> Fault:
    """Tell what kind of trouble it is, by the server's error code where it gives one."""
    import sqlite3  # noqa: PLC0415

    origin = error.orig
    if isinstance(origin, sqlite3.Error):
        message = str(origin).lower()
        return next((fault for part, fault in _SQLITE_FAULTS if part in message), Fault.OTHER)
    code = origin.args[0] if origin is not None and origin.args else None
    if isinstance(code, int):
        return _MYSQL_FAULTS.get(code, Fault.UNREACHABLE if error.connection_invalidated else Fault.OTHER)
    if state := getattr(origin, "sqlstate", None):
        fault = _POSTGRESQL_FAULTS.get(state, Fault.OTHER)
        # 08: connection exception; 57P: the server shuts down or starts up; 53: out of connections, memory or disk.
        return Fault.UNREACHABLE if fault is Fault.OTHER and state[:3] in {"080", "57P", "533"} else fault
    # psycopg gives no code when a connection cannot even be made; only the server's words are left.
    message = str(origin)
    if "does not exist" in message and "database" in message:
        return Fault.NO_DATABASE
    if "authentication failed" in message or "no password supplied" in message:
        return Fault.DENIED
    return Fault.UNREACHABLE if isinstance(error, OperationalError) or error.connection_invalidated else Fault.OTHER


# -- statements -------------------------------------------------------------------------------------------------------


class among(expression.FunctionElement[bool]):  # noqa: N801
    """``column IN (values)``; on PostgreSQL as one array, whose thousand values are not parsed one by one."""

    type = Boolean()
    _is_implicitly_boolean = True  # else SQLAlchemy writes "(... IN ...) = 1" where no index can serve it
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], values: Collection[Any]) -> None:
        chosen = list(values)
        kind = ARRAY(column.type)
        array: ColumnElement[Any] = expression.bindparam(None, chosen, type_=kind, unique=True)
        if isinstance(column.type, Integer):  # written as text, a tenth of the time that the driver takes
            literal = expression.bindparam(None, array_literal(chosen), type_=String(), unique=True)
            array = expression.cast(literal, kind)
        one_by_one = expression.bindparam(None, chosen, type_=column.type, unique=True, expanding=True)
        super().__init__(column, array, column.in_(one_by_one))


@compiles(among)
def _among(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    _column, _array, contained = element.clauses
    return f"({compiler.process(contained, **kw)})"


@compiles(among, "postgresql")
def _among_postgresql(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    column, array, _contained = element.clauses
    return f"{compiler.process(column, **kw)} = ANY ({compiler.process(array, **kw)})"


def writes_in_with(connection: Connection | Engine) -> bool:
    """Tell whether one statement can change several tables: WITH gone AS (DELETE ... RETURNING ...) INSERT ..."""
    return connection.dialect.name == "postgresql"


def returns_changed(connection: Connection) -> bool:
    """Tell whether each statement that changes rows can return them (RETURNING)."""
    return connection.dialect.update_returning and connection.dialect.insert_returning


def array_literal(numbers: Collection[int]) -> str:
    """Write an array as PostgreSQL reads it."""
    return f"{{{','.join(map(str, numbers))}}}"


class given(expression.FunctionElement[bool]):  # noqa: N801
    """Hold for the ids that are named so when a statement that was made once is executed."""

    type = Boolean()
    _is_implicitly_boolean = True
    inherit_cache = True

    def __init__(self, column: ColumnElement[int], name: str) -> None:
        super().__init__(column, expression.bindparam(name, type_=String()))


@compiles(given, "postgresql")
def _given_postgresql(element: given, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = (compiler.process(each, **kw) for each in element.clauses)
    return f"{column} = ANY (CAST({ids} AS BIGINT[]))"


@compiles(given, "sqlite")
def _given_sqlite(element: given, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = (compiler.process(each, **kw) for each in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({ids}))"  # noqa: S608  (both compiled)


@compiles(given, "mysql")
def _given_mysql(element: given, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = element.clauses  # written into it: MySQL changes no rows by a list in a parameter quickly
    return f"{compiler.process(column, **kw)} IN ({_place_of(cast('BindParameter[str]', ids).key)})"


def written(name: str) -> ColumnElement[int]:
    """Stand for a number that is written into a statement when it is executed, for LIMIT.

    PostgreSQL keeps a plan for all executions only if it costs no more than one made for the values at hand; of a
    LIMIT that it cannot see it assumes a tenth of all rows, so it would plan each time anew, which takes longer than
    to claim ten jobs.
    """
    return expression.literal_column(_place_of(name), Integer())


def _place_of(name: str) -> str:
    """Mark where a value is to be written into a statement."""
    return f"/*{name}*/"


def array_of(ids: ColumnElement[int]) -> ColumnElement[Any]:
    """Return the ids of a part of such a statement as an array, for ``any_``.

    The planner takes an array for short. Of a part it may think that it has a tenth of all rows, and read them all.
    """
    return expression.cast(select(func.array_agg(ids)).scalar_subquery(), ARRAY(BigInteger))


def gathers(connection: Connection) -> bool:
    """Tell whether a group's ids can be had as an array, and groups differ where texts do, in case and space too."""
    return connection.dialect.name == "postgresql"


def first(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column of the first row of each group, where the database gathers."""
    return func.array_agg(column, type_=ARRAY(column.type))[1]


def execute_hot(connection: Connection, build: Callable[[], Executable], /, **values: Any) -> Sequence[Row[Any]]:
    """Execute what ``build`` makes, made and compiled once a program: for statements of every few milliseconds.

    A list is one of ids, for ``given``. What comes back is as the driver gives it.
    """
    compiled = _compiled(build, connection.dialect)
    current = _texts[build]
    statement = f"{compiled.string} -- {current.number}" if current.number else compiled.string
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = array_literal(value) if writes_in_with(connection) else str(value)
            statement = statement.replace(_place_of(name), str(value)[1:-1] or "NULL")
        elif isinstance(value, int):
            statement = statement.replace(_place_of(name), str(value))
    values = {**compiled.params, **values}
    order = compiled.positiontup
    start = time.monotonic()
    result = connection.exec_driver_sql(statement, values if order is None else tuple(values[name] for name in order))
    if writes_in_with(connection):
        current.note(time.monotonic() - start)
    return result.all() if result.returns_rows else []


@dataclass(slots=True)
class _Text:
    """Which text of a statement is used.

    PostgreSQL keeps the plan of a text. One made while a table was empty reads all of it when it is full, until the
    server looks at its size a minute later; another text gets another plan. That is a small part of what takes long;
    but a server that takes long with any plan (a slow disk, a long way) gets another one ever more rarely.
    """

    number: int = 0
    slow: int = 0  # how many times in a row it took long
    most: int = 1  # how many times it may, before another text is tried

    def note(self, seconds: float) -> None:
        """Take another text if this one takes too long."""
        if seconds <= PLAN_ANEW:
            self.slow, self.most = 0, 1
            return
        self.slow += 1
        if self.slow >= self.most:
            self.number, self.slow, self.most = self.number + 1, 0, min(2 * self.most, MOST_SLOW)


_texts: defaultdict[Callable[[], Executable], _Text] = defaultdict(_Text)


@lru_cache
def _compiled(build: Callable[[], Any], dialect: Dialect) -> SQLCompiler:
    compiled: SQLCompiler = build().compile(dialect=dialect)
    return compiled


class holds(expression.FunctionElement[bool]):  # noqa: N801  (used like an SQL function)
    """Whether a text holds another: as LIKE does, in half the time and without wildcards."""

    type = Boolean()
    inherit_cache = True

    def __init__(self, text: ColumnElement[str], part: str) -> None:
        super().__init__(text, expression.bindparam(None, part, type_=String(), unique=True))


@compiles(holds)
def _holds(element: holds, compiler: SQLCompiler, **kw: Any) -> str:
    return f"instr({compiler.process(element.clauses, **kw)}) > 0"


@compiles(holds, "postgresql")
def _holds_postgresql(element: holds, compiler: SQLCompiler, **kw: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **kw)}) > 0"


class octets(expression.FunctionElement[int]):  # noqa: N801  (used like an SQL function)
    """How many bytes a text has. PostgreSQL knows that of a long text without unpacking it."""

    type = Integer()
    inherit_cache = True


@compiles(octets)
def _octets(element: octets, compiler: SQLCompiler, **kw: Any) -> str:
    return f"octet_length({compiler.process(element.clauses, **kw)})"


@compiles(octets, "sqlite")
def _octets_sqlite(element: octets, compiler: SQLCompiler, **kw: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **kw)} AS BLOB))"


def insert_many(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, all with the same keys, by the fastest means of the driver."""
    if connection.dialect.name != "postgresql":
        connection.execute(expression.insert(table), rows)
        return
    names = list(rows[0])
    write = [_writer(table.c[name].type, connection.dialect) for name in names]
    prepare = connection.dialect.identifier_preparer
    columns = ", ".join(prepare.format_column(table.c[name]) for name in names)
    statement = f"COPY {prepare.format_table(table)} ({columns}) FROM STDIN"
    driver = cast("psycopg.Connection", connection.connection.driver_connection)
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row([f(value) for f, value in zip(write, row.values(), strict=True)])
    except driver.Error as error:  # SQLAlchemy does not see this one
        raise DBAPIError(statement, None, error, connection_invalidated=driver.broken) from error


def _writer(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any]:
    """Return what a value of this type becomes for COPY."""
    bound = kind.bind_processor(dialect)
    if bound is None:
        return lambda value: value
    # As text, once for all the rows that have the time in common: the driver would write it for each.
    return lru_cache(maxsize=8)(lambda value: None if value is None else str(bound(value)))


def insert_if_absent(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]] = (), **values: Any
) -> None:
    """Insert one row unless a row of the same unique key is there; never an error, never a change.

    With ``rows`` as many; ``values`` are what they have in common.
    """
    connection.execute(_skipping(connection, table, lambda insertion: insertion.values(**values)), rows or None)


def tells_apart(connection: Connection) -> bool:
    """Whether texts are equal only if they are the same; MySQL's usual collations pass over case and accents."""
    return connection.dialect.name != "mysql"


def insert_new(connection: Connection, table: Table, names: Sequence[str], rows: Select[Any]) -> None:
    """Insert what a query with a WHERE returns, but no row whose unique key is there already; change none."""
    connection.execute(_skipping(connection, table, lambda insertion: insertion.from_select(names, rows)))


def _skipping(connection: Connection, table: Table, given: Callable[[Any], Any]) -> Executable:
    """Insert what is given, and pass over rows whose unique key is there."""
    match connection.dialect.name:
        case "postgresql":
            from sqlalchemy.dialects import postgresql  # noqa: PLC0415

            skipping: Executable = given(postgresql.insert(table)).on_conflict_do_nothing()
        case "mysql":
            from sqlalchemy.dialects import mysql  # noqa: PLC0415

            # Not INSERT IGNORE: that would cut a text that is too long for its column, and say nothing.
            key = {each.name: each for each in table.primary_key}
            skipping = given(mysql.insert(table)).on_duplicate_key_update(key)
        case _:
            from sqlalchemy.dialects import sqlite  # noqa: PLC0415

            skipping = given(sqlite.insert(table)).on_conflict_do_nothing()
    return skipping


def distinct_values(connection: Connection, column: ColumnElement[str]) -> list[str]:
    """Return the distinct values of a column that leads an index, reading a few entries a value instead of all rows."""
    if connection.dialect.name == "mysql":  # its own optimizer does that
        return list(connection.scalars(select(column).distinct().order_by(column)))
    return list(connection.scalars(leaping(column)))


def leaping(column: ColumnElement[str]) -> Select[tuple[str]]:
    """Select the same on PostgreSQL and SQLite: from each value the index leads to the next one."""
    values = select(func.min(column).label("value")).cte("distinct_values", recursive=True)
    following = select(func.min(column)).where(column > values.c.value).scalar_subquery()
    values = values.union_all(select(following).where(values.c.value.is_not(None)))
    return select(values.c.value).where(values.c.value.is_not(None)).order_by(values.c.value)


def inserted_id(result: CursorResult[Any]) -> int:
    """Return the id that the database gave to the one row inserted."""
    (number,) = result.inserted_primary_key or (None,)
    if number is None:
        raise AssertionError("the database gave the row no id")
    return int(number)
