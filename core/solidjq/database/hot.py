"""Hot statements: those that run every few milliseconds, compiled once a program and planned once by the server."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
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

from solidjq.database.statements import array_literal, writes_in_with

if TYPE_CHECKING:
    from sqlalchemy.sql.elements import BindParameter


PLAN_ANEW = 0.005  # seconds that a statement may take and keep its plan
MOST_SLOW = 1024  # times in a row that it may take longer, once many plans made it no quicker


class ids_in(expression.FunctionElement[bool]):  # noqa: N801
    """Hold for the ids that are named so when a statement that was made once is executed."""

    type = Boolean()
    _is_implicitly_boolean = True
    inherit_cache = True

    def __init__(self, column: ColumnElement[int], name: str) -> None:
        super().__init__(column, expression.bindparam(name, type_=String()))


@compiles(ids_in, "postgresql")
def _given_postgresql(element: ids_in, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = (compiler.process(each, **kw) for each in element.clauses)
    return f"{column} = ANY (CAST({ids} AS BIGINT[]))"


@compiles(ids_in, "sqlite")
def _given_sqlite(element: ids_in, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = (compiler.process(each, **kw) for each in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({ids}))"  # noqa: S608  (both compiled)


@compiles(ids_in, "mysql")
def _given_mysql(element: ids_in, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = element.clauses  # written into it: MySQL changes no rows by a list in a parameter quickly
    return f"{compiler.process(column, **kw)} IN ({_place_of(cast('BindParameter[str]', ids).key)})"


def number_in_text(name: str) -> ColumnElement[int]:
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
