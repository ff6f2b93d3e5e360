"""Transactions: the only place where one is opened, and where a driver's error becomes one of ours."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from sqlalchemy import Connection, Row
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from solidjq.database import answers, engines, faults, owners, poolers, statements, tables, urls
from solidjq.database.faults import Fault
from solidjq.database.hot import HotStatement
from solidjq.database.times import clock
from solidjq.errors import (
    AccessDeniedError,
    BusyError,
    ConflictError,
    DatabaseError,
    DatabaseUnreachableError,
    LedgerMissingError,
    LockedError,
    MissingDriverError,
    NotAQueueError,
    OutOfResourcesError,
    RefusedError,
    ServerSettingError,
    StorageError,
    TookTooLongError,
    UsageError,
    ValueRefusedError,
)
from solidjq.text import one_line

if TYPE_CHECKING:
    from solidjq.database.other_queues import Surroundings
    from solidjq.database.place import DatabaseIdentity, Place

GLANCE = 1.0  # seconds for what is only said beside an answer
GRACE = 0.5  # seconds more until a glance closes its connection: the server's own limit comes first
ATTEMPTS = 8  # of one move, if deadlocks or a busy database end each

LEAST_GLANCE = 0.01  # seconds: with less time left no look is begun

_WRITERS: set[tuple[int, str]] = set()  # threads, each with the SQLite file that it writes to

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """A queue's database. Cheap to make: it connects at the first transaction.

    With ``read_only``, the database itself refuses every write. ``answer_timeout`` is how many seconds a server may
    take to answer a statement before it counts as unreachable. A statement that has waited ``lock_timeout`` seconds
    for a lock, by default as long as the server lets it, fails with LockedError; SQLite has one lock for all, and its
    own limit.

    Raises MissingDriverError if the driver's package is not installed, UsageError for an option that cannot be used.
    """

    def __init__(
        self,
        url: URL,
        *,
        name: str = "jq",
        read_only: bool = False,
        answer_timeout: float = answers.COMMAND_TIMEOUT,
        lock_timeout: float | None = None,
    ) -> None:
        self.url = url
        self._prefix = tables.prefix()
        self.read_only = read_only
        try:
            engine = engines.create(
                url, name=name, read_only=read_only, answer_timeout=answer_timeout, lock_timeout=lock_timeout
            )
        except (ImportError, NoSuchModuleError) as error:
            raise MissingDriverError(
                f"the driver for {url.get_backend_name()} is not usable: {one_line(str(error))}; "
                "run: pip install --upgrade solidjq"
            ) from error
        except (ValueError, TypeError, ArgumentError) as error:
            raise UsageError(f"an option of the database's URL cannot be used: {one_line(str(error))}") from error
        self._is_guarded = False
        # Of SQLite, where one connection writes at a time.
        self._file = os.path.realpath(url.database or "") if url.get_backend_name() == "sqlite" else None
        self._driver_error: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._reader = engine
        self._writer = engine.execution_options(**{engines.WRITES: True})

    def __str__(self) -> str:
        return urls.masked_url(self.url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads."""
        self._require_own_prefix()
        with self._errors(), engines.transaction(self._reader) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that may write; it commits at the end of the block, and rolls back if the block raises.

        Raises RefusedError if the database is opened read-only, or a superuser would run the code of another role;
        AccessDeniedError if a MySQL server is set read-only, even where this user could write all the same; LockedError
        if this thread has another transaction open that writes to the same SQLite file.
        """
        self.require_writable()
        self._require_own_prefix()
        with self._errors(), self._only_writer_of_thread(), engines.transaction(self._writer) as connection:
            self._guard(connection)
            yield connection

    @contextmanager
    def _only_writer_of_thread(self) -> Iterator[None]:
        """Raise LockedError if this thread writes to this SQLite file already: it would wait for itself."""
        if self._file is None:
            yield
            return
        writer = (threading.get_ident(), self._file)
        if writer in _WRITERS:
            raise LockedError(
                f"{self} is busy: this thread has a transaction open that writes to it; use its connection"
            )
        _WRITERS.add(writer)
        try:
            yield
        finally:
            _WRITERS.discard(writer)

    def _guard(self, connection: Connection) -> None:
        """Before the first write, check whose code the tables run, and whether the server is to be written to.

        So before the first after a move that raised AccessDeniedError, as a heartbeat does once the server is set
        read-only. Every command that writes passes here.
        """
        if not self._is_guarded:
            if connection.dialect.name == "mysql":
                self._require_taking_writes(connection)
            owners.require_safe_for_superuser(connection)
            self._is_guarded = True

    def _require_taking_writes(self, connection: Connection) -> None:
        from solidjq.database.standby import READ_ONLY, takes_no_writes  # noqa: PLC0415  (only on MySQL)

        if takes_no_writes(connection):
            kind, message = _TRANSLATIONS[Fault.READ_ONLY]
            raise kind(message.format(database=self, words=READ_ONLY))

    def glance(self, look: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return what a look finds, or None if that fails or takes longer than a second.

        For what is only said beside an answer: it must neither delay the answer nor decide how the command ends.
        """
        return self.glances()(look, *args, **kwargs)

    def glances(self) -> "Glances":
        """Return what makes several glances within one second, as ``glance`` makes one."""
        return Glances(self, time.monotonic() + GLANCE)

    def transact(self, move: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one move in one transaction; run it again from its start after a deadlock or if SQLite is busy.

        Not after LockedError: a lock that was not released while a statement waited for it may be held for long.
        """
        return self._again(self.write, LockedError, move, *args, **kwargs)

    def transact_briefly(self, move: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one move as ``transact`` does, but wait for a busy SQLite file only once, for the busy timeout.

        For what can be tried again later. Raises BusyError.
        """
        return self._again(self.write, (LockedError, BusyError), move, *args, **kwargs)

    def execute(self, statement: HotStatement[Any], /, **values: Any) -> Sequence[Row[Any]]:
        """Execute a hot statement as a transaction of its own, in one round trip; again after a deadlock."""
        return self._again(self._alone, LockedError, statement, **values)

    def count(self, statement: HotStatement[Any], /, **values: Any) -> int:
        """Execute a hot UPDATE or DELETE as ``execute`` does; return how many rows it found."""
        return self._again(self._alone, LockedError, statement.count, **values)

    def each_alone(self, move: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a move of which each statement is a transaction of its own; again after a deadlock."""
        return self._again(self._alone, LockedError, move, *args, **kwargs)

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """Open a connection for one statement that is a transaction by itself."""
        self.require_writable()
        self._require_own_prefix()
        with self._errors(), self._only_writer_of_thread(), self._writer.connect() as connection:
            if poolers.needs_transaction(connection):
                with connection.begin():
                    self._guard(connection)
                    yield connection
            else:
                own = engines.without_transaction(connection)
                self._guard(own)
                yield own

    def _again(
        self,
        connected: Callable[[], AbstractContextManager[Connection]],
        raised: type[ConflictError] | tuple[type[ConflictError], ...],
        move: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        for attempt in range(1, ATTEMPTS):
            try:
                with connected() as connection:
                    return move(connection, *args, **kwargs)
            except raised:
                raise
            except ConflictError:
                # At random, so that two programs in a deadlock do not meet again.
                time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311
        with connected() as connection:
            return move(connection, *args, **kwargs)

    def require_writable(self) -> None:
        """Raise RefusedError if the database is opened read-only."""
        if self.read_only:
            raise RefusedError(f"{self} is opened read-only, and this would change it; nothing was changed")

    def _require_own_prefix(self) -> None:
        if tables.prefix() != self._prefix:
            raise UsageError(
                f"{self} was opened for tables {self._prefix}*, but this process now uses {tables.prefix()}*: "
                "one process works on queues of one prefix"
            )

    @property
    def write_style(self) -> statements.WriteStyle:
        """What this database returns of the rows that a statement changes."""
        return statements.write_style(self._writer)

    @property
    def writes_in_with(self) -> bool:
        """Whether one statement can change several tables."""
        return statements.writes_in_with(self._writer)

    @property
    def init_command(self) -> str:
        """The command that creates a queue here; its password, if any, is masked."""
        return urls.init_command(self.url, None if self._prefix == tables.DEFAULT_PREFIX else self._prefix)

    @contextmanager
    def outside_transactions(self) -> Iterator[Connection]:
        """Open a connection each of whose statements commits by itself, for statements that no transaction may contain.

        Raises RefusedError as ``write`` does.
        """
        self.require_writable()
        self._require_own_prefix()
        with self._errors(), self._only_writer_of_thread(), self._reader.connect() as connection:
            own = engines.without_transaction(connection)
            self._guard(own)
            yield own

    def now(self) -> datetime:
        """Read the database's clock."""
        with self.read() as connection:
            return clock(connection)

    def place(self) -> "Place":
        """Return where this leads: the database, its server, whether it may write, whether it is a standby."""
        from solidjq.database.place import find_place  # noqa: PLC0415  (by few commands)

        with self.read() as connection:
            return find_place(connection, self.url, read_only=self.read_only)

    def identity(self) -> "DatabaseIdentity":
        """Return which database this is, for a file that belongs to it."""
        from solidjq.database.place import identify  # noqa: PLC0415  (by few commands)

        with self.read() as connection:
            return identify(connection, self.url)

    def look_around(self) -> "Surroundings":
        """Return which tables are in this database, and where else on its server, or beside its file, a queue is."""
        from solidjq.database import other_queues  # noqa: PLC0415  (if no queue is here)

        return other_queues.look_around(self._reader, self.url)

    def not_a_queue(self, words: str) -> DatabaseError:
        """Return the error for a missing table, which ``words`` name: what is here, and which queues are elsewhere.

        Where the queue is here, and the table is one of jq's own, that is a LedgerMissingError.
        """
        around = self.look_around()
        if around.has_queue:
            if ours := next((table.name for table in tables.jq.sorted_tables if table.name in words), None):
                missing = f"the table {ours}, a part of jq's record, is missing"
                return LedgerMissingError(f"{missing}; run: {self.init_command}")
            return NotAQueueError(
                f"{around.here} is not a Solid Queue database of version 1.x ({words}); "
                "to see what it lacks: jq doctor tables"
            )
        return NotAQueueError(around.words(self.init_command))

    def close(self) -> None:
        """Close every connection."""
        self._reader.dispose()

    def forget_connections(self) -> None:
        """In a forked process: leave the open connections to the process that opened them, and open others."""
        self._reader.dispose(close=False)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except AccessDeniedError:
            self._is_guarded = False
            raise
        except DBAPIError as error:
            if faults.fault_of(error) is Fault.NOT_PREPARED:
                poolers.stop_preparing(self._reader)
            raise self.translated(error) from error
        except PendingRollbackError as error:  # a statement after the one at which the connection broke
            raise DatabaseUnreachableError(f"cannot reach {self}: the connection broke") from error
        except PoolTimeoutError as error:
            raise DatabaseUnreachableError(f"all connections to {self} are busy") from error
        except self._driver_error as error:  # raised past SQLAlchemy
            raise self.translated(faults.driver_error(error, self._reader.dialect)) from error

    def translated(self, error: DBAPIError) -> DatabaseError:
        """Return the error of this package for one of the driver's."""
        fault = faults.fault_of(error)
        words = faults.words_of(error)
        if fault is Fault.NO_TABLE:
            return self.not_a_queue(words)
        if fault in {Fault.NO_DATABASE, Fault.NO_FILE}:
            from solidjq.database import other_queues  # noqa: PLC0415  (if no queue is here)

            if fault is Fault.NO_FILE:
                return NotAQueueError(other_queues.no_file(Path(self.url.database or ""), self.init_command))
            if queues := other_queues.queues_of_server(self.url):
                return NotAQueueError(
                    f"{words}; Solid Queue's tables are in {other_queues.names_of(queues)}: name one of these"
                )
        what = "" if self._prefix == tables.DEFAULT_PREFIX else f" with tables {self._prefix}*"
        kind, message = _TRANSLATIONS[fault]
        return kind(message.format(database=self, words=words, what=what, function=faults.function_of(error)))


_TRANSLATIONS: dict[Fault, tuple[type[DatabaseError], str]] = {
    Fault.NOT_A_DATABASE: (NotAQueueError, "{database} is not an SQLite database: {words}"),
    Fault.NO_DATABASE: (NotAQueueError, "{words}; name another database, or create this one first"),
    Fault.NO_COLUMN: (
        NotAQueueError,
        (
            "{database} is not a Solid Queue database of version 1.x{what} ({words}); "
            "to see what it lacks: jq doctor tables"
        ),
    ),
    Fault.NO_NAME: (
        DatabaseError,
        (
            "{database} reported: {words}, in {function}; jq's statements have only pg_catalog in their search path: "
            "let the function have its own: ALTER FUNCTION ... SET search_path = public"
        ),
    ),
    Fault.DENIED: (AccessDeniedError, "{database} refused: {words}"),
    Fault.READ_ONLY: (
        AccessDeniedError,
        "{database} takes no writes: {words}; if it is a standby, name its primary instead",
    ),
    Fault.CONFLICT: (ConflictError, "{database} is busy ({words}): the transaction was rolled back, try again"),
    Fault.BUSY: (BusyError, "{database} is busy ({words}): the transaction was rolled back, try again"),
    Fault.LOCKED: (LockedError, "{database} is busy ({words}): the transaction was rolled back, try again"),
    Fault.NOT_PREPARED: (
        ConflictError,
        (
            "{database} is a pooler that shares sessions ({words}): the transaction was rolled back, try again with "
            "?prepared_statements=false in its URL"
        ),
    ),
    Fault.NO_TRANSACTIONS: (
        ServerSettingError,
        (
            "{database} is a pooler in statement mode, which allows no transactions: name one in transaction or "
            "session mode, or the server itself"
        ),
    ),
    Fault.STATEMENT_LOG: (
        ServerSettingError,
        (
            "{database} takes no writes at READ COMMITTED while its binary log is by statement: "
            "let an administrator run: SET GLOBAL binlog_format = MIXED (or ROW), and set it in my.cnf"
        ),
    ),
    Fault.RESOURCES: (OutOfResourcesError, "{database} has no room left: {words}"),
    Fault.STORAGE: (StorageError, "{database} cannot read or write its files: {words}; see the server's log"),
    Fault.TOO_LONG: (TookTooLongError, "{database} stopped a statement that took too long: {words}"),
    Fault.VALUE: (ValueRefusedError, "{database} refused a value: {words}"),
    Fault.UNREACHABLE: (DatabaseUnreachableError, "cannot reach {database}: {words}"),
    Fault.OTHER: (DatabaseError, "{database} reported: {words}"),
}


class Glances(NamedTuple):
    """Looks that share one deadline: however many numbers stand beside an answer, they delay it by that much only."""

    database: Database
    deadline: float  # of time.monotonic

    def __call__(self, look: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return what a look finds, or None if that fails or would end after the deadline."""
        seconds = self.deadline - time.monotonic()
        if seconds < LEAST_GLANCE:
            return None
        try:
            with (
                answers.within(seconds + GRACE),
                self.database.read() as connection,
                engines.time_limit(connection, seconds),
            ):
                return look(connection, *args, **kwargs)
        except DatabaseError:
            return None
