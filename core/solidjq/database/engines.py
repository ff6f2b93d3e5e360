"""Engines and connections: time-outs, isolation, read-only, SQLite's BEGIN, time limits of statements.

SQLAlchemy's dialect for a database and the driver are imported only if that database is used: together they can take
a tenth of a second.
"""

import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from sqlalchemy import Connection, Dialect, Engine, QueuePool, create_engine, event, text
from sqlalchemy.dialects import registry
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DBAPIError

from solidjq.database import answers, first_look, keys, poolers, sessions, tables
from solidjq.database.encodings import adapt_encoding
from solidjq.database.faults import Fault, fault_of, past_sqlalchemy
from solidjq.database.poolers import SessionTerms
from solidjq.database.times import mysql_conversions, read_every_timestamp
from solidjq.database.unknown_columns import decode, unquote
from solidjq.database.url_options import PREPARE, last_values
from solidjq.errors import AccessDeniedError, DatabaseURLError
from solidjq.text import one_line

if TYPE_CHECKING:
    import sqlite3


# If no handler is set, Python would print what these log: SQLAlchemy a Ctrl-C in the middle of a statement, with its
# stack; psycopg a pipeline whose server went away, which is an error of ours anyway.
for library in ("sqlalchemy", "psycopg"):
    logging.getLogger(library).addHandler(logging.NullHandler())

BUSY_TIMEOUT = 5.0  # seconds that an SQLite writer waits for another
CONNECT_TIMEOUT = 10  # seconds
SCHEMA_LOCK_TIMEOUT = 30  # seconds
WRITES = "solidjq_writes"  # execution option of a connection that will write
_COMMITTED = "solidjq_committed"  # key of a connection's ``info``: its last transaction did, and nothing came after it
NO_TRANSACTION = "solidjq_no_transaction"  # execution option on SQLite: each statement commits by itself

_DIALECTS = {"postgresql": "postgresql.solidjq", "mysql": "mysql.solidjq"}  # names of SQLAlchemy's registry
registry.register(_DIALECTS["postgresql"], "solidjq.database.quiet_postgresql", "QuietPostgreSQL")
registry.register(_DIALECTS["mysql"], "solidjq.database.quiet_mysql", "QuietMySQL")


def create(
    url: URL,
    *,
    name: str,
    read_only: bool = False,
    answer_timeout: float = answers.COMMAND_TIMEOUT,
    lock_timeout: float | None = None,
) -> Engine:
    """Return an engine that has not connected yet. The server lists its connections under ``name``.

    With ``read_only``, the database itself refuses every write on its connections. ``answer_timeout`` is how many
    seconds a server may take to answer; the connection is closed then. ``lock_timeout`` is how many seconds a statement
    waits for a lock, by default as long as the server lets it.

    Raises ImportError when the driver is missing.
    """
    backend = url.get_backend_name()
    if backend == "sqlite":
        return _create_sqlite(url, read_only=read_only)
    options: dict[str, Any] = {"pool_size": 5, "max_overflow": 5}
    options["pool_reset_on_return"] = None  # _reset does it
    terms: SessionTerms | None = None
    if backend == "postgresql":
        options["isolation_level"] = sessions.ISOLATION
        options["use_native_hstore"] = False  # no column has that type; looking it up takes two round trips
        arguments: dict[str, Any] = {
            "application_name": name,
            "client_encoding": "utf8",  # in a database of SQL_ASCII, the driver would return bytes for every text
            "connect_timeout": CONNECT_TIMEOUT,
        }
        url, terms = _session_terms(url, lock_timeout)
    else:
        if "read_default_file" in (named := last_values(url.query)):
            from solidjq.database.option_files import check_option_file  # noqa: PLC0415  (where a URL names one)

            check_option_file(named["read_default_file"], named.get("read_default_group", "client"))
        arguments = {
            "connect_timeout": CONNECT_TIMEOUT,
            "program_name": name,
            "conv": mysql_conversions(),
            "autocommit": None,  # the session's settings say it
        }
        from solidjq.database.tls import with_tls  # noqa: PLC0415  (only MySQL's driver needs Python's ssl)

        url, encryption = with_tls(url)
        arguments |= encryption
    arguments |= answers.arguments(backend, answer_timeout)
    arguments = {k: v for k, v in arguments.items() if k not in url.query}
    engine = create_engine(url.set(drivername=_DIALECTS[backend].replace(".", "+")), connect_args=arguments, **options)
    if terms is not None:
        poolers.follow_sessions(engine, terms)
    # First of all: SQLAlchemy's own look at a new connection must not run the functions of other roles either.
    event.listen(engine, "connect", lambda driver, record: _begin(engine, driver, record.info, terms), insert=True)
    if read_only and backend == "postgresql":
        engine = engine.execution_options(postgresql_readonly=True)

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: Dialect, _record: object, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            driver = answers.connect(dialect, answer_timeout, positional, named)
        except (ValueError, TypeError, AttributeError, LookupError, OSError) as error:
            raise DatabaseURLError(f"an option of the database's URL cannot be used: {one_line(str(error))}") from error
        if backend == "mysql":
            sessions.begin_mysql_session(driver, lock_timeout, read_only=read_only)
        return driver

    event.listen(engine, "handle_error", _leave_a_reader)
    event.listen(engine, "reset", _reset)
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Open a transaction; it commits at the end of the block, and rolls back if the block raises."""
    with engine.connect() as connection:
        with connection.begin():
            yield connection
        connection.info[_COMMITTED] = True


def _reset(driver: Any, record: Any, _state: object) -> None:
    """End what a connection left open that goes back to the pool.

    The pool would do so after a commit, too; on MySQL that is a round trip for every transaction.
    """
    if not record.info.pop(_COMMITTED, False):
        driver.rollback()


def _session_terms(url: URL, lock_timeout: float | None) -> tuple[URL, SessionTerms]:
    """Return the URL that the driver gets, and what is made by statement instead of requested at the start.

    A pooler may drop what is requested at the start in silence, or refuse the connection for it.
    """
    prepare = {"true": True, "false": False}.get(str(url.query.get(PREPARE)))
    ours = {} if lock_timeout is None else {"lock_timeout": str(round(lock_timeout * 1000))}  # milliseconds
    names = (str(tables.jobs.name), tables.schema_migrations.name)
    terms = SessionTerms(tables=names, prepare=prepare, settings=ours)
    url = url.difference_update_query([PREPARE])
    requested = url.query.get("options")
    if requested is None:
        return url, terms
    settings, others = poolers.split_options(requested if isinstance(requested, str) else requested[-1])
    # An empty text, too, so that the driver does not take PGOPTIONS or a service's instead.
    return url.update_query_dict({"options": others}), replace(terms, settings={**ours, **settings})


def _begin(engine: Engine, driver: Any, info: dict[str, Any], terms: SessionTerms | None) -> None:
    """Prepare a new connection, or close it.

    Raises RefusedError if reading would run the code of another role, NotAQueueError for keys that jq cannot read.

    ``terms`` are those of PostgreSQL's sessions.
    """
    try:
        if terms is None:
            dialect: Any = engine.dialect
            dialect.server = first_look.look_at_mysql(driver)
        else:
            read_every_timestamp(driver)
            adapt_encoding(driver)
            first_look.look_at_postgresql(driver, poolers.open_session(driver, info, terms))
    except BaseException:
        driver.close()  # the pool forgets it
        raise


def _leave_a_reader(context: ExceptionContext) -> None:
    """Connect anew after a refused write: after a failover, the server that takes writes is another one."""
    error = context.sqlalchemy_exception
    if isinstance(error, DBAPIError) and fault_of(error) is Fault.READ_ONLY:
        context.is_disconnect = True


def without_transaction(connection: Connection) -> Connection:
    """Make each statement commit by itself, for statements that no transaction may contain."""
    if connection.dialect.name == "sqlite":  # the driver does, unless a transaction was begun
        return connection.execution_options(**{NO_TRANSACTION: True})
    with past_sqlalchemy(connection, "SET AUTOCOMMIT"):  # a round trip on MySQL
        return connection.execution_options(isolation_level="AUTOCOMMIT")


def _create_sqlite(url: URL, *, read_only: bool) -> Engine:
    import sqlite3  # noqa: PLC0415

    from solidjq.database.digests import sha256_of  # noqa: PLC0415  (other databases have it)

    path = Path(url.database or "").absolute()

    def connect() -> sqlite3.Connection:
        if is_special(path):
            raise sqlite3.OperationalError("unable to open database file")
        # mode=rw: opening must not create an empty file at a mistyped path. Autocommit: _begin sends BEGIN.
        connection = sqlite3.connect(
            f"file://{quote(str(path))}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA busy_timeout = 0")
            keys.require_readable(connection.execute(keys.ON_SQLITE))
        except BaseException as error:
            # Whoever opens a locked file may do so to see who locks it; the next connection looks again.
            if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF != sqlite3.SQLITE_BUSY:  # or one of its kinds
                connection.close()
                raise
        connection.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT * 1000)}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")  # a trigger in another's file calls no function with effects
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        connection.text_factory = decode
        connection.create_function("unquote", 1, unquote, deterministic=True)
        connection.create_function("jq_sha256", 1, sha256_of, deterministic=True)
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred BEGIN takes the write lock only at its first write: two claims that both read before they wrote
        # claimed the same job.
        options = connection.get_execution_options()
        if not options.get(NO_TRANSACTION, False):
            connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(WRITES, False) else "BEGIN")

    return engine


def is_special(path: Path) -> bool:
    """Whether there is a pipe or a device: to open one could wait for ever, deaf to signals."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def create_sqlite_file(url: URL) -> None:
    """Create the file of an SQLite queue, in WAL mode, and its folder, unless the file exists.

    Nobody but its owner may read or write a new file, or enter a new folder; what exists keeps its mode.
    Raises AccessDeniedError if the file cannot be created.
    """
    import sqlite3  # noqa: PLC0415

    path = Path(url.database or "").absolute()
    try:
        if path.is_file() and path.stat().st_size:
            return
        if path.is_dir():
            raise AccessDeniedError(f"cannot make {path}: it is a folder; name a file in it")
        if is_special(path):
            raise AccessDeniedError(f"cannot make {path}: a pipe or a device is there; name another file")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _create_private_file(path)
        # mode=rw: a link to a missing file is not followed, which would make a file that others may read.
        with closing(
            sqlite3.connect(f"file://{quote(str(path))}?mode=rw", uri=True, timeout=BUSY_TIMEOUT)
        ) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    except (OSError, sqlite3.Error) as error:
        if "locked" in str(error):  # another jq init is creating it; this pragma does not wait for the busy timeout
            return
        raise AccessDeniedError(f"cannot make {path}: {one_line(str(error))}") from error


def _create_private_file(path: Path) -> None:
    """Create an empty file of mode 0600 unless the path exists; SQLite gives its -wal and -shm the same mode."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


@contextmanager
def time_limit(connection: Connection, seconds: float) -> Iterator[None]:
    """Limit the time of each statement in this transaction; one that takes longer fails with TookTooLongError."""
    match connection.dialect.name:
        case "postgresql":  # it ends with the transaction
            connection.execute(text(f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}"))
            yield
        case "mysql":
            if getattr(connection.dialect, "is_mariadb", False):
                name, value = "max_statement_time", f"{seconds:f}"
            else:
                name, value = "max_execution_time", str(max(1, round(seconds * 1000)))
            with _mysql_setting(connection, name, value):
                yield
        case _:
            deadline = time.monotonic() + seconds
            driver = cast("sqlite3.Connection", connection.connection.driver_connection)
            driver.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            try:
                yield
            finally:
                driver.set_progress_handler(None, 0)


@contextmanager
def lock_limit(connection: Connection, seconds: float) -> Iterator[None]:
    """Limit how long each statement waits for a lock, to a second at least; it fails with LockedError then.

    On SQLite the busy timeout stays the limit: one lock is for all.
    """
    match connection.dialect.name:
        case "postgresql":  # it ends with the transaction
            connection.execute(text(f"SET LOCAL lock_timeout = {max(1000, round(seconds * 1000))}"))
            yield
        case "mysql":
            with _mysql_setting(connection, "innodb_lock_wait_timeout", str(max(1, round(seconds)))):
                yield
        case _:
            yield


@contextmanager
def _mysql_setting(connection: Connection, name: str, value: str) -> Iterator[None]:
    before = f"@solidjq_{name}"  # what the URL or the server's administrator chose
    connection.execute(text(f"SET {before} = @@SESSION.{name}, SESSION {name} = {value}"))
    try:
        yield
    finally:
        if not connection.invalidated:  # a new session has its own
            connection.execute(text(f"SET SESSION {name} = {before}"))
