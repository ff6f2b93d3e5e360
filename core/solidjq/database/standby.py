"""Standbys, and servers that are read-only as a whole: where old heartbeats do not show that a process is dead.

Heartbeats on a standby are as old as its lag: only the primary shows whether a silent process is dead. To a server that
takes no writes nobody can write a heartbeat.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, Connection, literal_column, text, true
from sqlalchemy.exc import DBAPIError

LAGGING = 10.0  # seconds behind; a MySQL replica that takes writes, as in a ring, counts as a standby from here on


@dataclass(frozen=True, slots=True)
class Standby:
    """A server that replays another's changes. ``lag`` is the most that it may be behind, in seconds; None if unknown.

    On PostgreSQL that is the age of the last transaction replayed: while the primary is idle, it grows too.
    """

    lag: float | None

    noun: ClassVar[str] = "standby"
    instead: ClassVar[str] = "ask the primary"  # what to do for a judgement by heartbeats

    def __str__(self) -> str:
        """Return ``a standby, up to 42 s behind its primary``."""
        return f"a standby, {self.words} its primary"

    @property
    def words(self) -> str:
        """How far it is behind: ``up to 42 s behind``."""
        return "an unknown time behind" if self.lag is None else f"up to {self.lag:.0f} s behind"

    @property
    def doubt(self) -> str:
        """Why no process may be called dead here."""
        return (
            f"this is {self}; heartbeats here are as old as its lag, so whether a silent process is dead, only the "
            "primary can tell"
        )

    @property
    def access(self) -> str:
        """What it is, for the name of a place: ``standby, up to 42 s behind``."""
        return f"standby, {self.words}"


@dataclass(frozen=True, slots=True)
class ReadOnlyServer(Standby):
    """A server that takes no writes from anybody, though it replays nobody's changes.

    As on a standby, an old heartbeat proves no death. ``setting`` is what forbids the writes: ``read_only``.
    """

    lag: float | None = None
    setting: str = "read_only"

    noun: ClassVar[str] = "read-only"
    instead: ClassVar[str] = "no heartbeat can be written here"

    def __str__(self) -> str:
        """Return ``a server that takes no writes (read_only is on)``."""
        return f"a server that takes no writes ({self.access})"

    @property
    def doubt(self) -> str:
        """Why no process may be called dead here, and what to do."""
        return (
            f"this is {self}; no heartbeat can be written here, so nobody is called dead: name the server that takes "
            f"the writes, or let an administrator run: {self.remedy}"
        )

    @property
    def remedy(self) -> str:
        """What lets it take writes again."""
        return _REMEDIES[self.setting]

    @property
    def access(self) -> str:
        """What it is, for the name of a place: ``read_only is on``."""
        return f"{self.setting} is on"


_TRANSACTIONS = "default_transaction_read_only"
_REMEDIES = {
    _TRANSACTIONS: f"ALTER SYSTEM RESET {_TRANSACTIONS} (of one database: ALTER DATABASE ... RESET), and reload",
    "read_only": "SET GLOBAL read_only = OFF",
    "innodb_read_only": "a restart without innodb_read_only",
}
# Where PostgreSQL may have a setting from that is in force for everybody, and not for this role or session alone.
_FOR_ALL = ("configuration file", "command line", "environment variable", "global", "database")


def find_standby(connection: Connection) -> Standby | None:
    """Return the standby, or the read-only server, that this server is; None for a primary, and for SQLite."""
    match connection.dialect.name:
        case "postgresql":
            return _postgresql(connection)
        case "mysql":
            return _mysql(connection)
        case _:
            return None


def _postgresql(connection: Connection) -> Standby | None:
    modes = text("SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on'")
    replays, refuses = connection.execute(modes).one()
    if not replays:
        return _read_only_postgresql(connection) if refuses else None
    # Only a role that may see the receiver's status can tell an idle primary from one that is cut off.
    query = text(
        "SELECT pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() "
        "AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') AS follows, "
        "CAST(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) AS double precision) AS age"
    )
    try:
        with connection.begin_nested():
            row = connection.execute(query).one()
    except DBAPIError as error:  # a cloud's own replicas lack these functions
        if error.connection_invalidated:
            raise
        return Standby(None)
    return Standby(0.0 if row.follows else None if row.age is None else max(0.0, row.age))


def _read_only_postgresql(connection: Connection) -> Standby | None:
    """Return the server if the setting is in force for everybody: a role that only reports often has it for itself."""
    query = text("SELECT source FROM pg_settings WHERE name = :name")
    source = connection.scalar(query, {"name": _TRANSACTIONS})
    return ReadOnlyServer(setting=_TRANSACTIONS) if source in _FOR_ALL else None


def _mysql(connection: Connection) -> Standby | None:
    status, setting = _replica_status(connection), read_only_setting(connection)
    if setting is not None and status is not None and not status:
        return ReadOnlyServer(setting=setting)
    return judge_replica(status, read_only=setting is not None)


READ_ONLY = "the server is set read-only"


def takes_writes(connection: Connection) -> ColumnElement[bool]:
    """Return the opposite of ``takes_no_writes`` as a condition: true on all but MySQL.

    A statement with it changes nothing where the server was set read-only, though this user may write all the same.
    """
    if connection.dialect.name != "mysql":
        return true()
    names = ("@@GLOBAL.read_only", "@@GLOBAL.innodb_read_only")  # numbers or words, as versions differ
    return literal_column(" AND ".join(f"CONCAT({name}) IN ('0', 'OFF')" for name in names)).self_group()


def takes_no_writes(connection: Connection) -> bool:
    """Whether a MySQL server is set read-only. It would still take the writes of its administrators.

    A row that is written on a replica is missing on its primary, and the replication may stop at it.
    """
    return read_only_setting(connection) is not None


def read_only_setting(connection: Connection) -> str | None:
    """Return the setting by which a MySQL server takes no writes; None if it takes them."""
    values = connection.execute(text("SELECT @@GLOBAL.read_only, @@GLOBAL.innodb_read_only")).one()
    named = zip(("read_only", "innodb_read_only"), values, strict=True)
    return next((name for name, value in named if str(value).upper() not in {"0", "OFF", "NONE"}), None)


def _replica_status(connection: Connection) -> Mapping[str, Any] | None:
    """Return the first row of the replica's status: empty if it is no replica, None if this user may not see it."""
    for statement in ("SHOW REPLICA STATUS", "SHOW SLAVE STATUS"):  # an old server knows only the second
        try:
            row = connection.execute(text(statement)).mappings().first()
            return {str(key): value for key, value in (row or {}).items()}
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
    return None


def judge_replica(status: Mapping[str, Any] | None, *, read_only: bool) -> Standby | None:
    """Return the standby that a MySQL server is, by its replica status and whether it refuses writes.

    A server that takes writes is a primary, though it may replicate from another: with both threads stopped it was
    promoted, and in a ring it follows closely. If it lags, the heartbeats that come from the other side are old.
    """
    values = {_new_name(key): value for key, value in (status or {}).items()}
    behind = values.get("seconds_behind_source")
    lag = None if behind is None else float(behind)
    runs = "Yes" in {values.get("replica_io_running"), values.get("replica_sql_running")}
    if read_only or (runs and (lag is None or lag >= LAGGING)):
        return Standby(lag)
    return None


def _new_name(key: str) -> str:
    """Return a column of the replica's status as new servers call it."""
    return key.lower().replace("slave", "replica").replace("master", "source")
