"""Times: the column types that Rails uses on each database, and the database's own clock in SQL.

Rails stores UTC without a zone everywhere; on SQLite as text, with 6 fraction digits, or 3 after a bulk insert.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import BigInteger, Connection, Dialect, select, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from solidjq.untrusted import moment_of, parse_time, utc_of

if TYPE_CHECKING:
    import psycopg
    from psycopg.abc import AdaptContext, Buffer


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _SqliteDateTime(UserDefinedType[datetime]):
    """Rails' ``datetime(6)`` on SQLite: text such as ``2026-11-23 04:40:22.022096``."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "datetime(6)"

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], str | None]:  # noqa: ARG002
        return lambda value: None if value is None else _write_sqlite_time(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[object], datetime | None]:  # noqa: ARG002
        return parse_time


def _write_sqlite_time(value: datetime) -> str:
    return value.isoformat(sep=" ", timespec="microseconds")


class UtcDateTime(TypeDecorator[datetime]):
    """A time with microseconds, stored as UTC without a zone; in Python an aware datetime, None for what is no time."""

    impl = _SqliteDateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column type that Rails uses for times."""
        if dialect.name == "postgresql":
            from sqlalchemy.dialects import postgresql  # noqa: PLC0415

            return dialect.type_descriptor(postgresql.TIMESTAMP(precision=6))
        if dialect.name == "mysql":
            from sqlalchemy.dialects import mysql  # noqa: PLC0415

            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(_SqliteDateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert to UTC and remove the zone."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    read: Callable[[object], datetime | None] = staticmethod(utc_of)  # MySQL's driver returns text for 0000-00-00

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[object], datetime | None]:
        """Add the zone UTC, in one call a value: lists have millions of times, and most of them are NULL."""
        read, stored = self.read, self.impl_instance.result_processor(dialect, coltype)
        if stored is None:
            return lambda value: None if value is None else read(value)
        return lambda value: read(stored(value))


class PastDateTime(UtcDateTime):
    """The time of something that happened; None for one at the ends of the calendar, with which nobody can reckon."""

    cache_ok = True

    read = staticmethod(moment_of)


def read_every_timestamp(driver: "psycopg.Connection[Any]") -> None:
    """Let PostgreSQL's driver read infinity, and years that Python lacks, as None instead of failing the whole read."""
    from psycopg.adapt import Loader  # noqa: PLC0415
    from psycopg.errors import DataError  # noqa: PLC0415
    from psycopg.pq import Format  # noqa: PLC0415

    def lenient(name: str) -> type[Loader]:
        exact = cast("type[Loader]", driver.adapters.get_loader(driver.adapters.types[name].oid, Format.TEXT))

        class TimestampLoader(Loader):
            def __init__(self, oid: int, context: "AdaptContext | None" = None) -> None:
                super().__init__(oid, context)
                self._load = exact(oid, context).load

            def load(self, data: "Buffer") -> datetime | None:
                try:
                    time: datetime = self._load(data)
                except DataError:
                    return None
                return time

        return TimestampLoader

    for name in ("timestamp", "timestamptz"):  # Rails can be set to create either
        driver.adapters.register_loader(name, lenient(name))


def mysql_conversions() -> dict[Any, Any]:
    """Return the conversions of MySQL's driver with another for times: its own takes 15 times as long.

    A time that is none, such as 0000-00-00, is returned as the driver does: as text.
    """
    from pymysql.constants import FIELD_TYPE  # noqa: PLC0415
    from pymysql.converters import conversions, convert_datetime  # noqa: PLC0415

    def read(text: str) -> object:
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            return convert_datetime(text)

    return {**conversions, FIELD_TYPE.DATETIME: read, FIELD_TYPE.TIMESTAMP: read}


class _SqliteBoundary(_SqliteDateTime):
    """A time to compare with. Without trailing zeros, it compares right with text of 0, 3 or 6 fraction digits."""

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
    """Return ``value`` as a parameter for ``column >= boundary`` and ``column < boundary``, on every database."""
    return expression.bindparam(None, value, type_=_UtcBoundary(), unique=True)


class time_value(expression.Cast[datetime]):  # noqa: N801  (used like an SQL function)
    """A time or NULL for the SELECT of an INSERT, where PostgreSQL must be told the type of a parameter.

    In SQLite a time is text, of which CAST AS DATETIME would leave the year, a number.
    """

    inherit_cache = True

    def __init__(self, value: datetime | None) -> None:
        super().__init__(expression.bindparam(None, value, type_=UtcDateTime(), unique=True), UtcDateTime())


@compiles(time_value, "sqlite")
def _time_value_sqlite(element: time_value, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clause, **kw)


class utcnow(expression.FunctionElement[datetime]):  # noqa: N801  (used like an SQL function)
    """The database's clock. It is constant within a statement, so an index can serve a comparison with it."""

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
    # SQLite's clock counts milliseconds; the zeros add the digits of Rails' microseconds.
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


class micros(expression.FunctionElement[int]):  # noqa: N801  (used like an SQL function)
    """A time as the number that ``micros_of`` returns; NULL for one at the ends of the calendar. Not on SQLite."""

    type = BigInteger()
    inherit_cache = True


@compiles(micros, "postgresql")
def _micros_postgresql(element: micros, compiler: SQLCompiler, **kw: Any) -> str:
    time = compiler.process(element.clauses, **kw)
    return f"CASE WHEN isfinite({time}) THEN (extract(epoch FROM {time}) * 1000000)::bigint END"


@compiles(micros, "mysql")
def _micros_mysql(element: micros, compiler: SQLCompiler, **kw: Any) -> str:
    return f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {compiler.process(element.clauses, **kw)})"


def micros_of(at: datetime) -> int:
    """Return a time as microseconds since 1970, exactly."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def time_of(count: int) -> datetime:
    """Return the time that ``micros_of`` was called with, in UTC."""
    return _EPOCH + timedelta(microseconds=count)


def clock(connection: Connection) -> datetime:
    """Read the database's clock."""
    now: datetime = connection.execute(select(utcnow())).scalar_one()
    return now


def up_since(connection: Connection) -> datetime | None:
    """Return when the database server started, by its own clock; None for SQLite, which has no server."""
    match connection.dialect.name:
        case "postgresql":
            query = "SELECT extract(epoch FROM pg_postmaster_start_time())"  # a number: DateStyle may be any
            return datetime.fromtimestamp(float(connection.execute(text(query)).scalar_one()), UTC)
        case "mysql":
            _name, seconds = connection.execute(text("SHOW GLOBAL STATUS LIKE 'Uptime'")).one()
            return clock(connection) - timedelta(seconds=int(seconds))
        case _:
            return None
