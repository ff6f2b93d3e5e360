"""Deletions of rows by their ids, which lock no other row.

MySQL and MariaDB scan a small table, or one of which many rows are named, rather than look up each id. A scan that
deletes waits for every row that another transaction has locked: the end of one job would wait for that of another. An
index hint does not change that; a join that begins with the ids does.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Boolean, Delete, String, Table
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler

from solidjq.database.among import among
from solidjq.database.hot import ids_in, place

if TYPE_CHECKING:
    from sqlalchemy.sql.elements import BindParameter

BY_ID = "FORCE INDEX (PRIMARY)"  # hint for a SELECT on MySQL that locks rows by their ids


class delete_by_id(Delete):  # noqa: N801  (used like ``delete``)
    """``DELETE ... WHERE id IN (ids)``; for a hot statement, ``ids`` is the name of the value."""

    inherit_cache = True

    def __init__(self, table: Table, ids: Collection[int] | str) -> None:
        super().__init__(table)
        wanted: _named | _listed = _named(table.c.id, ids) if isinstance(ids, str) else _listed(table.c.id, ids)
        self._where_criteria = (wanted,)


class delete_both(expression.Executable, expression.ClauseElement):  # noqa: N801  (used like ``delete``)
    """Delete rows of two tables by their ids, in a hot statement of MySQL; the ids' names are the tables' values.

    The ids are one list with two parts, and each is looked up in the table of its part.
    """

    inherit_cache = False

    def __init__(self, ids: Mapping[Table, str]) -> None:
        self.ids = ids


@compiles(delete_both, "mysql")
def _compile_both(element: delete_both, compiler: SQLCompiler, **_kw: Any) -> str:
    names = [compiler.preparer.format_table(table) for table in element.ids]
    lists = ",".join(f"[{place(name)}]" for name in element.ids.values())
    columns = "part FOR ORDINALITY, NESTED PATH '$[*]' COLUMNS (id BIGINT PATH '$')"
    joins = " ".join(
        f"LEFT JOIN {name} {BY_ID} ON {name}.id = ids.id AND ids.part = {part}" for part, name in enumerate(names, 1)
    )
    text = f"JSON_TABLE('[{lists}]', '$[*]' COLUMNS ({columns})) AS ids {joins}"
    return f"DELETE FROM {', '.join(names)} USING {text}"  # noqa: S608  (compiled)


class _named(ids_in):  # noqa: N801
    inherit_cache = True


class _listed(expression.FunctionElement[bool]):  # noqa: N801
    type = Boolean()
    _is_implicitly_boolean = True
    inherit_cache = True

    def __init__(self, column: expression.ColumnElement[int], ids: Collection[int]) -> None:
        text = expression.bindparam(None, f"[{','.join(map(str, ids))}]", type_=String(), unique=True)
        super().__init__(among(column, ids), text)


@compiles(_listed)
def _compile_listed(element: _listed, compiler: SQLCompiler, **kw: Any) -> str:
    contained, _ = element.clauses
    return compiler.process(contained, **kw)


@compiles(_listed, "mysql")
def _compile_listed_mysql(element: _listed, compiler: SQLCompiler, **kw: Any) -> str:
    _, text = element.clauses
    return compiler.process(text, **kw)


@compiles(_named, "mysql")
def _compile_named_mysql(element: _named, _compiler: SQLCompiler, **_kw: Any) -> str:
    _, name = element.clauses
    return f"'[{place(cast('BindParameter[str]', name).key)}]'"


@compiles(delete_by_id, "mysql")
def _compile_mysql(element: delete_by_id, compiler: SQLCompiler, **kw: Any) -> str:
    table = compiler.preparer.format_table(element.table)
    _, _, text = cast("Any", compiler).visit_delete(element, **kw).partition(" WHERE ")
    ids = f"JSON_TABLE({text}, '$[*]' COLUMNS (id BIGINT PATH '$')) AS ids"
    return f"DELETE FROM {table} USING {ids} STRAIGHT_JOIN {table} {BY_ID} ON {table}.id = ids.id"  # noqa: S608  (compiled)
