"""Parts of statements, and whole statements, that each database spells differently."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Boolean,
    ColumnElement,
    Connection,
    CursorResult,
    Dialect,
    Engine,
    Executable,
    Integer,
    Row,
    Select,
    String,
    Table,
    func,
    select,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine, UserDefinedType

from solidjq.database.faults import duplicate_is_conflict, past_sqlalchemy
from solidjq.database.poolers import qualified

if TYPE_CHECKING:
    import psycopg


class _Ids(UserDefinedType[Collection[int]]):
    """A list of ids in one value: PostgreSQL's text for an array, or a condition's text behind its column.

    To PostgreSQL it is sent without a type: the server reads it once, not for every row.
    """

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], str]:  # noqa: ARG002
        return array_literal

    def literal_processor(self, dialect: Dialect) -> Callable[[Collection[int]], str]:
        if dialect.name == "postgresql":
            return lambda ids: f"'{array_literal(ids)}'"
        return self._condition

    def _condition(self, ids: Collection[int]) -> str:
        listed = ",".join(map(str, ids)) or "SELECT 1 FROM DUAL WHERE 1 != 1"
        return f"IN ({listed})"


class _Range(_Ids):
    cache_ok = True

    def _condition(self, ids: Collection[int]) -> str:
        first, last = min(ids, default=0), max(ids, default=0)
        if first < last and len(set(ids)) == last - first + 1:
            return f"BETWEEN {first} AND {last}"
        return super()._condition(ids)


class among(expression.FunctionElement[bool]):  # noqa: N801
    """``column IN (values)``, where ``values`` may be the name of a list of ids that is given at execution.

    On PostgreSQL one array, on MySQL ids within the text: parsing or formatting a thousand parameters takes long.
    """

    type = Boolean()
    _is_implicitly_boolean = True  # else SQLAlchemy writes "(... IN ...) = 1" where no index can serve it
    inherit_cache = True
    _ids = _Ids

    def __init__(self, column: ColumnElement[Any], values: Collection[Any] | str) -> None:
        kind = ARRAY(column.type)
        name, members = (values, None) if isinstance(values, str) else (None, list(values))

        def value(type_: TypeEngine[Any], *, expanding: bool = False) -> BindParameter[Any]:
            return expression.bindparam(name, members, type_=type_, unique=name is None, expanding=expanding)

        whole = value(self._ids() if isinstance(column.type, Integer) else kind)
        super().__init__(column, whole, expression.cast(whole, kind), column.in_(value(column.type, expanding=True)))


class read_among(among):  # noqa: N801
    """``among`` for a primary key, in a statement that locks none of the rows that it reads.

    Failures of one moment have ids without a gap, and MySQL reads a range in a fifth of the time. A statement that
    locks would wait for the row behind the range, too.
    """

    inherit_cache = True
    _ids = _Range


@compiles(among)
def _among(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    *_, contained = element.clauses
    return f"({compiler.process(contained, **kw)})"


@compiles(among, "postgresql")
def _among_postgresql(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    column, _, array, _ = element.clauses
    return f"{compiler.process(column, **kw)} = ANY ({compiler.process(array, **kw)})"


@compiles(among, "mysql")
def _among_mysql(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    column, whole, _, contained = element.clauses
    if not isinstance(whole.type, _Ids):
        return f"({compiler.process(contained, **kw)})"
    ids = compiler.process(whole, **{**kw, "literal_execute": True})
    return f"{compiler.process(column, **kw)} {ids}"


class without_index(expression.FunctionElement[int]):  # noqa: N801  (used like an SQL function)
    """A number by whose index PostgreSQL must not look, because its statistics, which are old, would let it."""

    type = Integer()
    inherit_cache = True


@compiles(without_index)
def _with_index(element: without_index, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(without_index, "postgresql")
def _without_index(element: without_index, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({compiler.process(element.clauses, **kw)} + 0)"


class WriteStyle(Enum):
    """What a database returns of the rows that a statement changes: how many statements a move between tables takes."""

    CHAINED = "PostgreSQL"  # to the same statement: WITH gone AS (DELETE ... RETURNING ...) INSERT ...
    RETURNING = "SQLite"  # to the program
    SILENT = "MySQL, MariaDB"  # nothing: rows are locked and read first. MariaDB's UPDATE has no RETURNING


def write_style(connection: Connection | Engine) -> WriteStyle:
    """Return what this database returns of the rows that a statement changes."""
    if writes_in_with(connection):
        return WriteStyle.CHAINED
    returns = connection.dialect.update_returning and connection.dialect.insert_returning
    return WriteStyle.RETURNING if returns else WriteStyle.SILENT


def writes_in_with(connection: Connection | Engine) -> bool:
    """Whether one statement can change several tables: WITH gone AS (DELETE ... RETURNING ...) INSERT ..."""
    return connection.dialect.name == "postgresql"


def array_literal(numbers: Collection[int]) -> str:
    """Return an array of numbers as PostgreSQL's text for it."""
    return f"{{{','.join(map(str, numbers))}}}"


class holds(expression.FunctionElement[bool]):  # noqa: N801  (used like an SQL function)
    """Whether a text contains another: what LIKE finds, in half the time and without wildcards."""

    type = Boolean()
    inherit_cache = True

    def __init__(self, text: ColumnElement[str], part: str) -> None:
        super().__init__(text, expression.bindparam(None, part, type_=String(), unique=True))


@compiles(holds)
def _holds(element: holds, compiler: SQLCompiler, **kw: Any) -> str:
    return f"instr({compiler.process(element.clauses, **kw)}) > 0"


@compiles(holds, "mysql")
def _holds_mysql(element: holds, compiler: SQLCompiler, **kw: Any) -> str:
    text, part = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"instr(CAST({text} AS BINARY), {part}) > 0"  # as bytes: a collation takes longer for every character


@compiles(holds, "postgresql")
def _holds_postgresql(element: holds, compiler: SQLCompiler, **kw: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **kw)}) > 0"


class octets(expression.FunctionElement[int]):  # noqa: N801  (used like an SQL function)
    """The length of a text in bytes. PostgreSQL reads that of a long text without decompressing it."""

    type = Integer()
    inherit_cache = True


@compiles(octets)
def _octets(element: octets, compiler: SQLCompiler, **kw: Any) -> str:
    return f"octet_length({compiler.process(element.clauses, **kw)})"


@compiles(octets, "sqlite")
def _octets_sqlite(element: octets, compiler: SQLCompiler, **kw: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **kw)} AS BLOB))"


class own_arguments(expression.FunctionElement[str]):  # noqa: N801  (used like an SQL function)
    """The job's own arguments in the payload of Active Job; a text that is no such payload is returned whole.

    In a payload they stand between the keys ``arguments`` and ``executions``. The arguments may contain the second key
    too, so its last place counts.
    """

    type = String()
    inherit_cache = True


@compiles(own_arguments)
def _own_arguments(element: own_arguments, compiler: SQLCompiler, **kw: Any) -> str:
    payload = compiler.process(element.clauses, **kw)
    extracted = f"coalesce(json_extract({payload}, '$.arguments'), {payload})"
    return f"(CASE WHEN json_valid({payload}) THEN {extracted} ELSE {payload} END)"


@compiles(own_arguments, "postgresql")
def _own_arguments_postgresql(element: own_arguments, compiler: SQLCompiler, **kw: Any) -> str:
    payload = compiler.process(element.clauses, **kw)
    return f'coalesce(substring({payload} from \'"arguments":(.*)"executions":\'), {payload})'


@compiles(own_arguments, "mysql")
def _own_arguments_mysql(element: own_arguments, compiler: SQLCompiler, **kw: Any) -> str:
    payload = compiler.process(element.clauses, **kw)
    after = f"SUBSTRING_INDEX({payload}, '\"executions\":', -1)"
    before = f"LEFT({payload}, CHAR_LENGTH({payload}) - CHAR_LENGTH({after}) - 13)"
    ends = f"LOCATE('\"arguments\":', {payload}) > 0 AND LOCATE('\"executions\":', {payload}) > 0"
    return f"(CASE WHEN {ends} THEN SUBSTR({before}, LOCATE('\"arguments\":', {payload}) + 12) ELSE {payload} END)"


class current_role(expression.FunctionElement[str]):  # noqa: N801  (used like an SQL function)
    """The role that this connection acts as, by the database; NULL in SQLite.

    PostgreSQL: with the role that logged in, where it is another one. MySQL: the account, with its host.
    """

    type = String()
    inherit_cache = True


@compiles(current_role)
def _no_current_role(_element: current_role, _compiler: SQLCompiler, **_: Any) -> str:
    return "NULL"


@compiles(current_role, "postgresql")
def _current_role_postgresql(_element: current_role, _compiler: SQLCompiler, **_: Any) -> str:
    return "(current_user || CASE WHEN session_user = current_user THEN '' ELSE ' by ' || session_user END)"


@compiles(current_role, "mysql")
def _current_role_mysql(_element: current_role, _compiler: SQLCompiler, **_: Any) -> str:
    return "CURRENT_USER()"


STREAMED = 2000  # rows that a streamed query fetches at a time


def streamed(connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
    """Yield the rows of a query without holding them all: the server keeps them until they are fetched.

    Fetch all of them before the next statement on this connection, which must be in a transaction.
    """
    yield from connection.execute(query.execution_options(yield_per=STREAMED))


def insert_many(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, all with the same keys, in the driver's fastest way: COPY on PostgreSQL."""
    if connection.dialect.name != "postgresql":
        connection.execute(expression.insert(table), rows)
        return
    names = list(rows[0])
    writers = [_writer(table.c[name].type, connection.dialect) for name in names]
    prepare = connection.dialect.identifier_preparer
    columns = ", ".join(prepare.format_column(table.c[name]) for name in names)
    statement = f"COPY {qualified(connection, table.name)} ({columns}) FROM STDIN"
    driver = cast("psycopg.Connection", connection.connection.driver_connection)
    with past_sqlalchemy(connection, statement), driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row([write(value) for write, value in zip(writers, row.values(), strict=True)])


def _writer(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any]:
    """Return the function that converts values of this type for COPY."""
    bound = kind.bind_processor(dialect)
    if bound is None:
        return lambda value: value
    # As text, formatted once for all rows with the same time; the driver would format it for each row.
    return lru_cache(maxsize=8)(lambda value: None if value is None else str(bound(value)))


def insert_if_absent(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]] = (), **values: Any
) -> None:
    """Insert rows, but none whose unique key exists; existing rows do not change.

    Each of ``rows`` is completed by ``values``; without ``rows``, ``values`` are the one row.
    """
    statement = _insert_or_skip(connection, table, lambda insertion: insertion.values(**values))
    connection.execute(statement, rows or None)


def compares_exactly(connection: Connection) -> bool:
    """Whether texts are equal only if identical; MySQL's usual collations ignore case and accents."""
    return connection.dialect.name != "mysql"


def lacks(key: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that no row has ``value`` as ``key``, for few rows: each is looked up in the key's index.

    A NOT EXISTS does the same, but MariaDB may read all keys of the table first, in each statement anew.
    """
    return select(key).where(key == value).limit(1).scalar_subquery().is_(None)


def insert_new(connection: Connection, table: Table, names: Sequence[str], rows: Select[Any]) -> None:
    """Insert the rows of a query that has a WHERE, but none whose unique key exists; existing rows do not change.

    Raises ConflictError on MySQL if another transaction inserts such a row at this moment.
    """
    if connection.dialect.name != "mysql":
        connection.execute(_insert_or_skip(connection, table, lambda insertion: insertion.from_select(names, rows)))
        return
    # ON DUPLICATE KEY UPDATE takes the right to UPDATE every column, and who counts crashes must not rewrite them.
    (key,) = table.primary_key
    selected = dict(zip(names, rows.selected_columns, strict=True))[key.name]
    with duplicate_is_conflict(f"another program inserted the same rows into {table.name} at this moment"):
        connection.execute(expression.insert(table).from_select(list(names), rows.where(lacks(key, selected))))


def _insert_or_skip(connection: Connection, table: Table, fill: Callable[[Any], Any]) -> Executable:
    """Return the INSERT that ``fill`` completes, which skips rows whose unique key exists."""
    match connection.dialect.name:
        case "postgresql":
            from sqlalchemy.dialects import postgresql  # noqa: PLC0415

            statement: Executable = fill(postgresql.insert(table)).on_conflict_do_nothing()
        case "mysql":
            from sqlalchemy.dialects import mysql  # noqa: PLC0415

            # Not INSERT IGNORE, which silently truncates a text that is too long for its column.
            key = {column.name: column for column in table.primary_key}
            statement = fill(mysql.insert(table)).on_duplicate_key_update(key)
        case _:
            from sqlalchemy.dialects import sqlite  # noqa: PLC0415

            statement = fill(sqlite.insert(table)).on_conflict_do_nothing()
    return statement


def distinct_values(connection: Connection, column: ColumnElement[str]) -> list[str]:
    """Return the distinct values of a column that leads an index, reading a few entries a value instead of all rows."""
    if connection.dialect.name == "mysql":  # its own optimizer does that
        return list(connection.scalars(select(column).distinct().order_by(column)))
    return list(connection.scalars(distinct_by_index(column)))


def distinct_by_index(column: ColumnElement[str]) -> Select[tuple[str]]:
    """Select the distinct values of a column that leads an index, for PostgreSQL and SQLite.

    From each value, the index leads to the next one: a few entries are read a value.
    """
    values = select(func.min(column).label("value")).cte("distinct_values", recursive=True)
    following = select(func.min(column)).where(column > values.c.value).scalar_subquery()
    values = values.union_all(select(following).where(values.c.value.is_not(None)))
    return select(values.c.value).where(values.c.value.is_not(None)).order_by(values.c.value)


def estimated_rows(connection: Connection, table: Table) -> int:
    """Return about how many rows a table has, by its server's statistics; SQLite has none, and counts by an index."""
    match connection.dialect.name:
        case "postgresql":
            query = text("SELECT reltuples FROM pg_class WHERE oid = CAST(:name AS regclass)")
            name = qualified(connection, table.name)
        case "mysql":
            query = text(
                "SELECT table_rows FROM information_schema.tables "
                "WHERE table_schema = DATABASE() AND table_name = :name"
            )
            name = table.name
        case _:
            return connection.scalar(select(func.count()).select_from(table)) or 0
    return max(0, int(connection.scalar(query, {"name": name}) or 0))


def inserted_id(result: CursorResult[Any]) -> int:
    """Return the id of the one row that was inserted."""
    (number,) = result.inserted_primary_key or (None,)
    if number is None:
        raise AssertionError("the database gave the row no id")
    return int(number)


def begin_ids_above(connection: Connection, table: Table, last: int) -> None:
    """Let the ids of an empty table begin above ``last``."""
    name = qualified(connection, table.name)
    match connection.dialect.name:
        case "postgresql":
            sequence = "pg_get_serial_sequence(:name, 'id')"
            connection.execute(text(f"SELECT setval({sequence}, :last)"), {"name": name, "last": last})
        case "mysql":
            connection.execute(text(f"ALTER TABLE {name} AUTO_INCREMENT = {last + 1}"))
        case _:
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
            numbers = {"name": table.name, "last": last}
            connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), numbers)
