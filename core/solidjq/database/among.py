"""``among``: the condition that a column has one of many values, in the form that each database reads fastest."""

from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import ARRAY, BindParameter, Boolean, ColumnElement, Dialect, Integer
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine, UserDefinedType


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


def array_literal(numbers: Collection[int]) -> str:
    """Return an array of numbers as PostgreSQL's text for it."""
    return f"{{{','.join(map(str, numbers))}}}"
