"""Hot statements: those that run every few milliseconds. Compiled once a program, planned once by the server.

A function marked ``@hot`` is written as the builder of its statement, and called to execute it::

    @hot
    def delete_claims() -> Delete:
        \"\"\"Delete claims by id; a claim that has ended is passed over.\"\"\"
        return delete(claimed).where(ids_in(claimed.c.id, "claim_ids"))

    delete_claims(connection, claim_ids=[17, 18])

Its docstring says in a sentence what it does and what guards it: ``docs/sql.md`` is made from it. A statement that is
a transaction by itself, in one round trip, is executed by ``Database.execute``.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast, overload

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    CursorResult,
    Dialect,
    Executable,
    Integer,
    Row,
    String,
    func,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler

from solidjq.database.among import array_literal
from solidjq.database.poolers import schema_of
from solidjq.database.statements import WriteStyle

if TYPE_CHECKING:
    from sqlalchemy.sql.elements import BindParameter

SLOW = 0.005  # seconds; a statement that takes longer may get another plan
MOST_SLOW = 1024  # slow executions in a row before another plan, once many plans made it no quicker

S = TypeVar("S", bound=Executable)
Execute = Callable[..., Sequence[Row[Any]]]  # takes a hot statement and its values by name

STATEMENTS: dict[str, "HotStatement[Any]"] = {}  # every hot statement of the modules that are loaded, by name


class HotStatement(Generic[S]):
    """What ``@hot`` makes of a builder: call it with a connection and the statement's values by name."""

    def __init__(self, build: Callable[[], S], styles: Sequence[WriteStyle]) -> None:
        self.name = build.__name__
        self.module = build.__module__
        self.styles = frozenset(styles or WriteStyle)  # of the databases that it is written for
        self.statement = build
        self._text = _Text()
        update_wrapper(self, build)

    def __call__(self, connection: Connection, /, **values: Any) -> Sequence[Row[Any]]:
        """Execute the statement; return its rows as the driver gives them. A list holds the ids of an ``ids_in``."""
        result = self._execute(connection, values)
        return result.all() if result.returns_rows else []

    def count(self, connection: Connection, /, **values: Any) -> int:
        """Execute an UPDATE or DELETE; return how many rows it found, the same on every database."""
        return self._execute(connection, values).rowcount

    def _execute(self, connection: Connection, values: Mapping[str, Any]) -> CursorResult[Any]:
        prepared = _prepare(self, connection.dialect, schema_of(connection))
        if values.keys() != prepared.names:
            raise TypeError(f"{self.name} takes {sorted(prepared.names)}, not {sorted(values)}")
        sql = f"{prepared.sql} -- {self._text.number}" if self._text.number else prepared.sql
        parameters = dict(prepared.constants)
        for name, value in values.items():
            ids = isinstance(value, list)
            if name in prepared.places:
                sql = sql.replace(place(name), (str(value)[1:-1] or "null") if ids else str(int(value)))
            else:
                parameters[name] = (array_literal(value) if prepared.plans else str(value)) if ids else value
        order = prepared.order
        start = time.monotonic()
        result = connection.exec_driver_sql(
            sql, parameters if order is None else tuple([parameters[name] for name in order])
        )
        if prepared.plans:
            self._text.note(time.monotonic() - start)
        return result

    def sql(self, dialect: Dialect) -> str:
        """Return the statement as this database gets it, its values written ``:name``, for a person to read.

        ``dialect`` is one with SQLAlchemy's parameter style ``named``.
        """
        prepared = _prepare(self, dialect)
        sql = prepared.sql
        for name in prepared.places:
            sql = sql.replace(place(name), f":{name}")
        for name, value in prepared.constants.items():
            sql = re.sub(rf":{re.escape(name)}\b", f"'{value}'" if isinstance(value, str) else str(value), sql)
        return sql


@overload
def hot(build: Callable[[], S], /) -> HotStatement[S]: ...
@overload
def hot(*styles: WriteStyle) -> Callable[[Callable[[], S]], HotStatement[S]]: ...
def hot(*arguments: Any) -> Any:
    """Make a builder a hot statement: ``@hot`` for every database, ``@hot(style, ...)`` for those of some styles."""
    if arguments and not isinstance(arguments[0], WriteStyle):
        return _register(HotStatement(arguments[0], ()))
    return lambda build: _register(HotStatement(build, arguments))


def _register(statement: HotStatement[S]) -> HotStatement[S]:
    if statement.name in STATEMENTS:
        raise ValueError(f"there are two hot statements {statement.name}")
    STATEMENTS[statement.name] = statement
    return statement


def within(connection: Connection) -> Execute:
    """Return what executes hot statements in this transaction, as ``Database.execute`` does in one of their own."""
    return lambda statement, **values: statement(connection, **values)


@dataclass(slots=True, eq=False, repr=False)
class _Text:
    """The text that a statement is sent with: a number at its end makes PostgreSQL take it for another statement.

    PostgreSQL keeps one plan for a text. A plan made while a table was empty scans the whole table once it is full,
    until the server looks at the table's size a minute later; another text gets another plan. But most slow executions
    have other reasons: on a server that is slow with any plan (a slow disk, a long way), texts change ever more rarely.
    """

    number: int = 0
    slow: int = 0  # slow executions in a row
    most: int = 1  # as many of them change the text

    def note(self, seconds: float) -> None:
        """Count an execution that took so long; change the text if too many in a row were slow."""
        if seconds <= SLOW:
            self.slow, self.most = 0, 1
            return
        self.slow += 1
        if self.slow >= self.most:
            self.number, self.slow, self.most = self.number + 1, 0, min(2 * self.most, MOST_SLOW)


class _Prepared(NamedTuple):
    """A hot statement compiled for one database."""

    sql: str
    constants: Mapping[str, Any]  # parameters whose values the statement itself contains
    order: Sequence[str] | None  # of positional parameters
    places: frozenset[str]  # values that are written into the text
    names: frozenset[str]  # all values that a call must give
    plans: bool  # whether the server keeps plans, and takes ids as an array


@lru_cache
def _prepare(statement: HotStatement[Any], dialect: Dialect, schema: str | None = None) -> _Prepared:
    within = {} if schema is None else {"schema_translate_map": {None: schema}, "render_schema_translate": True}
    compiled: SQLCompiler = cast("Any", statement.statement()).compile(dialect=dialect, **within)
    sql = compiled.string
    places = frozenset(re.findall(r"/\*(\w+)\*/", sql))
    called = {bind.key for bind in compiled.binds.values() if not bind.unique}
    constants = {name: value for name, value in compiled.params.items() if name not in called}
    return _Prepared(sql, constants, compiled.positiontup, places, places | called, dialect.name == "postgresql")


# -- parts of hot statements ------------------------------------------------------------------------------------------


class ids_in(expression.FunctionElement[bool]):  # noqa: N801
    """``column IN (ids)`` for a hot statement; the ids are passed as the value ``name`` when it runs."""

    type = Boolean()
    _is_implicitly_boolean = True
    inherit_cache = True

    def __init__(self, column: ColumnElement[int], name: str) -> None:
        super().__init__(column, expression.bindparam(name, type_=String()))


@compiles(ids_in, "postgresql")
def _ids_in_postgresql(element: ids_in, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} = ANY (CAST({ids} AS BIGINT[]))"


@compiles(ids_in, "sqlite")
def _ids_in_sqlite(element: ids_in, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({ids}))"  # noqa: S608  (both compiled)


@compiles(ids_in, "mysql")
def _ids_in_mysql(element: ids_in, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = element.clauses  # written into the text: MySQL is slow to change rows by a list in a parameter
    return f"{compiler.process(column, **kw)} IN ({place(cast('BindParameter[str]', ids).key)})"


def limit_of(name: str) -> ColumnElement[int]:
    """Return a LIMIT for a hot statement; the number is written into the text when it runs.

    PostgreSQL keeps a plan for all executions only if it costs no more than one made for the values at hand. For a
    LIMIT in a parameter it assumes a tenth of the table, so it would plan every execution anew, which takes longer
    than to claim ten jobs.
    """
    return expression.literal_column(place(name), Integer())


def place(name: str) -> str:
    """Return where in the text of a hot statement a value is written when it runs."""
    return f"/*{name}*/"


def array_of(ids: ColumnElement[int]) -> ColumnElement[Any]:
    """Return the ids of a CTE as an array, for ``any_``.

    For an array, PostgreSQL assumes a few ids; for a CTE it may assume a tenth of the table, and scan it whole.
    """
    return expression.cast(select(func.array_agg(ids)).scalar_subquery(), ARRAY(BigInteger))
